"""Torch-level rewrites, active while a model is traced."""
