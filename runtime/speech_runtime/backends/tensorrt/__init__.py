"""The TensorRT backend, which runs the engines stored in a bundle."""
