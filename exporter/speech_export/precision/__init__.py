"""Converts a float32 bundle to fp16, int8 or int4, and keeps in float32 whatever would cost accuracy."""
