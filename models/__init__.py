"""Where your model lives: code that `export.source` names, or `.onnx` files with their evaluation data."""
