"""The commands `speech-transcribe` and `speech-bench`, and what all commands share: flags, output formats, signals."""
