"""Rewrites of torch modules and operations, active while a model is traced."""
