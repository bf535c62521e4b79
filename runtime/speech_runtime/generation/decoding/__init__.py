"""Runs the decoder graphs step by step and keeps their caches."""
