"""Atomic writes: files and directories that appear complete or not at all. `writing` is for users of this package."""
