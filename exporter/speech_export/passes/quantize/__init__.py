"""Passes that quantise weights to int8 or int4."""
