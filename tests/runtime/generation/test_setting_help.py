"""Test that `help(model.generate)` has every keyword, with the meaning, range and default of its declaration."""

import inspect
import re
import subprocess
import sys
from dataclasses import fields
from typing import Any

import pytest

from speech_runtime import GenerationConfig, OnnxSpeechSeq2Seq
from speech_runtime.generation import setting_help
from speech_runtime.generation.call_options import CallOptions, SearchKeywords
from speech_runtime.generation.setting_help import with_setting_help


def listed(function: Any) -> dict[str, str]:
    """The keywords of a function's help, and what it says of each."""
    _, _, text = (inspect.getdoc(function) or "").partition("Keyword Args:\n")
    section, _, _ = text.partition("\nReturns:\n")
    found = re.findall(r"^    (\w+) \((.+(?:\n {8}.+)*)", section, re.MULTILINE)
    return {name: " ".join(said.split()) for name, said in found}


def test_every_keyword_is_listed_once() -> None:
    assert set(listed(OnnxSpeechSeq2Seq.generate)) | {"generation_config"} == set(SearchKeywords.__annotations__)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "num_beams",
            "int): Number of hypotheses kept for each utterance; 1 is greedy search. Allowed: 1 to 1,024. Default: 1.",
        ),
        (
            "max_length",
            "int | None): Largest number of tokens, the prompt included. Allowed: 1 to 131,072. Default: None.",
        ),
        ("do_sample", "bool): If true, draw tokens by their probabilities. Default: False."),
        ("output_scores", "bool): If true, return the processed scores of every step. Default: False."),
    ],
)
def test_a_keyword_has_its_type_meaning_range_and_default(name: str, said: str) -> None:
    assert listed(OnnxSpeechSeq2Seq.generate)[name] == said


def test_every_default_is_that_of_the_declaration() -> None:
    found = listed(OnnxSpeechSeq2Seq.generate)
    for record in (GenerationConfig, CallOptions):
        for field in fields(record):
            if field.name in found:
                default = "none" if field.default == () else repr(field.default)
                assert found[field.name].endswith(f" Default: {default}."), field.name
                assert re.search(r"\): \w.{20,}", found[field.name]), f"{field.name} has no description"


def test_the_rest_of_the_docstring_stays_around_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    def function() -> None:
        """Do it.

        Returns:
            Nothing.
        """

    monkeypatch.setattr(setting_help, "setting_help", lambda: ["a (int): One. Default: 1.", "b (int): " + "word " * 40])
    lines = (with_setting_help(function).__doc__ or "").splitlines()
    assert lines[:4] == ["Do it.", "", "Keyword Args:", "    a (int): One. Default: 1."]
    assert lines[-3:] == ["", "Returns:", "    Nothing."]
    assert max(map(len, lines)) <= 120
    assert lines[5].startswith("        word")


def test_python_without_docstrings_imports_it() -> None:
    code = "from speech_runtime import OnnxSpeechSeq2Seq; print(OnnxSpeechSeq2Seq.generate.__doc__)"
    said = subprocess.run([sys.executable, "-OO", "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "None"
