"""Bundles for inference servers that run already: NVIDIA Triton and OpenVINO Model Server."""
