"""`speech-export --static-cache`: what it says before anything is traced."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from conftest import CHECKPOINT
from speech_export.cli import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--static-cache", "64"], "a static cache is for GPUs"),
        (
            ["--static-cache", "1", "--target", "cuda"],
            "to have 1 tokens; a search keeps 2 at least",
        ),
        (["--static-cache", "9999", "--target", "cuda"], "set --static-cache to 64 or less"),
    ],
)
def test_a_cache_that_cannot_be_had_is_refused_at_once(arguments: list[str], message: str, tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    result = CliRunner().invoke(main, [str(CHECKPOINT), "-o", str(output), *arguments])
    assert result.exit_code == 1
    assert message in result.output
    assert not list(tmp_path.iterdir())
