"""What runs in fresh processes of its own: probe and profiler. Nothing else of this room runs there.

They import numpy, ONNX Runtime and little more, so that little else is in the memory that they measure.
"""
