"""Conversion of a transformers tokenizer to a `tokenizer.json` that decodes identically, and its checks."""
