"""From token ids to text without transformers: what a tokenizer says, as a `tokenizer.json` that says the same."""
