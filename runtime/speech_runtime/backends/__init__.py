"""Backends that run the graphs: ONNX Runtime with any execution provider, or TensorRT engines."""
