"""Load a `Composite` from a fine-tuned checkpoint, a pair of checkpoints, or a pair of configurations."""
