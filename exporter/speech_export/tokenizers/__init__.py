"""Converts any transformers tokenizer to a `tokenizer.json` that decodes identically."""
