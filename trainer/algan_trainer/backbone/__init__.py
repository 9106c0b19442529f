"""Pretrained backbones: ONNX files whose outputs are features. Only making one needs PyTorch."""
