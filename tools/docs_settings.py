"""Extension of the API pages (mkdocs.yml): docstrings that the code completes with the list of all settings.

The pages are made of source text, without running it; `generate` gets its list when it is imported.
"""

import sys
from pathlib import Path
from typing import Any

import griffe

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "runtime"))  # this checkout, not what is installed

from speech_runtime.generation.generator import SpeechGenerator


class CompletedDocstrings(griffe.Extension):  # type: ignore[misc]
    """Replace the docstring of `generate` by the one that `help` shows."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Replace it once all modules are read."""
        if pkg.name == "speech_runtime":
            pkg["generation.generator.SpeechGenerator.generate"].docstring.value = SpeechGenerator.generate.__doc__
