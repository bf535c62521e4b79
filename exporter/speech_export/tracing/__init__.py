"""Traces the torch model into the three ONNX graphs."""
