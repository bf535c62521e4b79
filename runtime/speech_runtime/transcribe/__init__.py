"""Transcribes clips and lists of clips: batching and results."""
