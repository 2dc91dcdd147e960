"""Modules that run in their own fresh processes: probe and profiler.

They import little besides numpy and ONNX Runtime, so that they measure the memory of the model and not their own.
"""
