"""Code blocks of the README and the docs, and the command lines in them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]

_BLOCK = re.compile(
    r"(?:^<!-- not run here: (?P<reason>.+?) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class Command:
    """A command line of a page.

    Attributes:
        words: The program and its arguments, without comments.
        output: Lines that the page shows below it; none where it shows no output.
    """

    words: list[str]
    output: list[str]


@dataclass(frozen=True)
class Block:
    """A code block of a page.

    Attributes:
        language: `console`, `bash`, `python` or another one.
        text: Its lines.
        reason: Why it is not run by the tests; None where it is run.
        line: Line of the page that it begins on.
    """

    language: str
    text: str
    reason: str | None
    line: int

    @property
    def commands(self) -> list[Command]:
        """Command lines of a `console` block (after `$`) or a `bash` block (all lines); a backslash continues one."""
        found: list[Command] = []
        for line in self.text.replace("\\\n", "").splitlines():
            if self.language == "bash" or line.startswith("$ "):
                words = shlex.split(line.removeprefix("$ ").removeprefix(".venv/bin/"), comments=True)
                found.extend([Command(words, [])] if words else [])
            else:
                found[-1].output.append(line)
        return found


def blocks_of(page: Path) -> list[Block]:
    """Return the code blocks of a page in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(match["language"], match["text"], match["reason"], text.count("\n", 0, match.start("language")) + 1)
        for match in _BLOCK.finditer(text)
    ]
