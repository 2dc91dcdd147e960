"""Rewrites of the float model that ONNX Runtime lacks: each exact, each a choice of `method: auto` that must pay."""
