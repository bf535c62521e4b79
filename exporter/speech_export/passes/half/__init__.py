"""Passes that convert a graph to float16 for GPUs."""
