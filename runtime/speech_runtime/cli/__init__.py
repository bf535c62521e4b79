"""The commands `speech-transcribe` and `speech-bench`, and parts of all commands: flags, output formats, signals."""
