"""The `speech-export` command."""
