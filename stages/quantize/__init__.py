"""fp32 ONNX -> INT8 ONNX."""
