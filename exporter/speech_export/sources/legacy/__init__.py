"""Checkpoints of model classes that transformers 5 no longer has: Flax composites and Speech2Text2."""
