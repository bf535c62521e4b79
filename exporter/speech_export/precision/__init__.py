"""Converts a float32 bundle to fp16, int8 or int4, and keeps the parts in float32 that would lose accuracy."""
