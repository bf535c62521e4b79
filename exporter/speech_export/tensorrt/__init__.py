"""Builds TensorRT engines from the graphs of a bundle. Needs neither torch nor onnx."""
