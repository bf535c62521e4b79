"""`optimum-cli export speech`: the command `speech-export`. Optimum imports every file of this folder when it starts.

The folders are a namespace that belongs to Optimum and to packages beside it, so none of them has an `__init__.py`.
"""

from argparse import REMAINDER, ArgumentParser

from optimum.commands.base import BaseOptimumCLICommand, CommandInfo
from optimum.commands.export.base import ExportCommand


class SpeechExportCommand(BaseOptimumCLICommand):  # type: ignore[misc]  # Optimum has no types
    """Hands its arguments on to `speech-export`, which knows the flags."""

    COMMAND = CommandInfo(
        name="speech", help="Export a speech encoder-decoder model to a bundle of ONNX graphs, with speech-export."
    )

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        """Take all that follows, flags and --help included."""
        parser.prefix_chars = ""  # no argument is a flag of this parser
        parser.add_argument("arguments", nargs=REMAINDER)

    def run(self) -> None:
        """Run `speech-export` and exit."""
        from speech_runtime.cli.entry import run

        run("speech_export.cli.export", self.args.arguments, program="optimum-cli export speech")


REGISTER_COMMANDS = [(SpeechExportCommand, ExportCommand)]
