"""Exact rewrites of the float model that ONNX Runtime lacks; `method: auto` applies those that do not slow it down."""
