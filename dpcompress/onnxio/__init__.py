"""All that knows the ONNX format: reading a file, writing one, its 16-bit form."""
