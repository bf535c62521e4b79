"""CUDA calls, device memory and CUDA graphs, shared by the backends that run on NVIDIA GPUs."""
