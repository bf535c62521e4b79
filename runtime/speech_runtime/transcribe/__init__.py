"""Transcription of lists of clips: batching and results."""
