"""Parity through the real thing: files in a folder, ONNX Runtime sessions, the stage as it is run."""
