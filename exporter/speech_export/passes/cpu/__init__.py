"""Passes that fit a graph to the CPU kernels of ONNX Runtime."""
