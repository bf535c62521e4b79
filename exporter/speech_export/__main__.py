"""Run the `speech-export` command: `python -m speech_export`."""

from speech_runtime.cli.commands import export

export()
