"""The `speech-export` command: its flags, help and messages."""
