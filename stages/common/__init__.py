"""What two rooms or more need: paths, params, errors, files, ONNX reading, sessions, evaluation data, comparison."""
