"""The `speech-export` command: its options, its help and its progress."""
