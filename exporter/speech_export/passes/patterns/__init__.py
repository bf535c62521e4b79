"""Patterns that several passes look for in a graph: attention, and products with constant weights."""
