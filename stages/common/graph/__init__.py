"""Reading and rewriting graphs on onnx-ir: weights, names, shapes, and the rewrites that clean a float model."""
