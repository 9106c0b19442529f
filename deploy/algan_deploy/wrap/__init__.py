"""Somebody else's ONNX model becomes a bundle: same input, same output, same gate as our own."""
