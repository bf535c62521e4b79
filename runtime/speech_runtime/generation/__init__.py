"""Decoding: generation settings, search, and the loop that drives the decoder graphs."""
