"""Compares an exported bundle with the torch model on the same audio."""
