"""Your model -> ONNX, and the evaluation data."""
