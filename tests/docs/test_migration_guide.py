"""Every row of the migration guide gives the same under transformers and here."""

import ast
import contextlib
import io
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import transformers

import speech_runtime
from conftest import CHECKPOINT, CLIPS, Pair
from pages import REPOSITORY

GUIDE = REPOSITORY / "docs" / "migrate.md"
LOADED = {"model", "feature_extractor", "tokenizer", "processor", "asr", "encoder_outputs"}
"""Names of objects that are compared by what they do in later rows."""


@dataclass(frozen=True)
class Row:
    """A row of a table: the code in its first column, and the text of its second."""

    left: str
    right: str
    line: int

    @property
    def codes(self) -> list[str]:
        """The code of the second column, where there is any; "the same" is that of the first."""
        return [self.left] if self.right == "the same" else re.findall(r"`(.+?)`", self.right)


def rows(heading: str) -> list[Row]:
    """The rows of all tables whose second column has a heading."""
    found: list[Row] = []
    inside = False
    for number, line in enumerate(GUIDE.read_text(encoding="utf-8").splitlines(), 1):
        if not line.startswith("| "):
            inside = inside and line.startswith("|---")
            continue
        left, right = (cell.strip() for cell in line.strip("|").split(" | "))
        if left == "transformers":
            inside = right == heading
        elif inside:
            found.append(Row(left.strip("`"), right, number))
    return found


def run(code: str, names: dict[str, Any]) -> tuple[str | None, Any, str]:
    """Run a line; return the name that it assigns, the value of it or of its expression, and what it prints."""
    *before, last = ast.parse(code).body
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), torch.no_grad():
        exec(compile(ast.Module(before, []), code, "exec"), names)  # noqa: S102 - our own docs
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), code, "eval"), names)  # noqa: S307
            return None, value, printed.getvalue()
        exec(compile(ast.Module([last], []), code, "exec"), names)  # noqa: S102
    if isinstance(last, ast.Assign) and isinstance(last.targets[0], ast.Name):
        return last.targets[0].id, names[last.targets[0].id], printed.getvalue()
    return None, None, printed.getvalue()


def compare(value: Any, wanted: Any) -> int:
    """Compare two values, and return the number of comparisons."""
    if isinstance(wanted, torch.Tensor):
        wanted = wanted.numpy()
    if hasattr(wanted, "keys"):
        shared = [name for name in wanted.keys() & value.keys() if isinstance(wanted[name], torch.Tensor)]
        return sum(compare(value[name], wanted[name]) for name in shared if name != "beam_indices")
    if isinstance(wanted, str | list | int):
        assert value == wanted
    else:
        np.testing.assert_allclose(value, wanted, atol=1e-4)
    return 1


def clips_of(references: dict[Path, str]) -> list[Any]:
    return [soundfile.read(file, dtype="float32")[0] for file in list(references)[:3]]


@pytest.fixture
def theirs(references: dict[Path, str]) -> dict[str, Any]:
    """Names for the first column; `pipeline` and the classes are imported when they are used."""
    names = (
        "AutoFeatureExtractor",
        "AutoTokenizer",
        "GenerationConfig",
        "TextStreamer",
        "Wav2Vec2Processor",
        "pipeline",
    )
    imported = {name: getattr(transformers, name) for name in names}
    file = CLIPS / "02-espeak-us.wav"
    own = {"torch": torch, "soundfile": soundfile, "checkpoint": str(CHECKPOINT), "file": str(file)}
    return {**imported, **own, "clips": clips_of(references), "allowed": lambda *_: [1]}


@pytest.fixture
def ours(digits: Pair, references: dict[Path, str]) -> dict[str, Any]:
    """Names for the second column: no torch, and of transformers only the streamer."""
    own = {"bundle": str(digits.directory), "file": str(CLIPS / "02-espeak-us.wav"), "clips": clips_of(references)}
    return {"np": np, "sys": sys, "TextStreamer": transformers.TextStreamer, "allowed": lambda *_: [1], **own}


def test_every_row_gives_the_same(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    compared = 0
    for row in rows("speech_runtime"):
        name, wanted, printed = run(row.left, theirs)
        for code in row.codes:
            assigned, value, said = run(code, ours)
            assert assigned == name, f"{GUIDE.name}:{row.line}"
            assert said.strip() == printed.strip(), f"{GUIDE.name}:{row.line}"
            if name in LOADED or value is None:
                continue
            try:
                compared += bool(compare(value, wanted))
            except AssertionError as error:
                raise AssertionError(f"{GUIDE.name}:{row.line}: {code}\n{error}") from None
    assert compared >= 33


def test_what_is_not_there_is_refused_by_name(digits: Pair, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    found = rows("Instead")
    assert len(found) == 7
    names = {**ours, "model": digits.exported, "inputs": digits.exported.processor(ours["clips"])}
    for row in found:
        keyword = re.findall(r"(\w+)=", row.left)
        with pytest.raises(speech_runtime.GenerationError, match="|".join(keyword)) as raised:
            run(row.left, names)
        assert "not a known setting" not in str(raised.value)
