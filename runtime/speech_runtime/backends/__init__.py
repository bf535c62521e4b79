"""Backends, which run the graphs: ONNX Runtime with any execution provider, or the TensorRT engines of a bundle."""
