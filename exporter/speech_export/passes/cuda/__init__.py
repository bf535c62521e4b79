"""Passes for ONNX Runtime's CUDA kernels: fewer and larger operations, some of which only ONNX Runtime knows."""
