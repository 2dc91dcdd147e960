"""ONNX files on disk, and ONNX Runtime sessions over them."""
