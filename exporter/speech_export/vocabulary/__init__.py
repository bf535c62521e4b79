"""Which tokens an export with `--vocabulary` keeps, and what can no longer be said without the others."""
