"""A look at an ONNX model before anything runs: what it holds, what each method would do, what to watch for."""
