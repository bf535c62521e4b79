"""Test that pickling or copying a model fails with the way to load it instead."""

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from speech_runtime import OnnxSpeechSeq2Seq


def model() -> OnnxSpeechSeq2Seq:
    manifest: Any = SimpleNamespace(encoder=None, decoder=SimpleNamespace(cache="growing"))
    parts: Any = (None, manifest, None, None, None)
    return OnnxSpeechSeq2Seq(*parts)


def sent_to_a_process(value: object) -> None:
    multiprocessing.get_context("spawn").SimpleQueue().put(value)


@pytest.mark.parametrize(
    "move", [pickle.dumps, copy.copy, copy.deepcopy, sent_to_a_process, lambda value: pickle.dumps({"models": [value]})]
)
def test_it_says_how_to_load_it_instead(move: Callable[[object], object]) -> None:
    with pytest.raises(TypeError, match=r"cannot be pickled or copied.*from_pretrained\(directory\)"):
        move(model())


def test_a_bound_method_says_so_too() -> None:
    """`pool.map(model.transcribe, files)` pickles the model first."""
    with pytest.raises(TypeError, match="cannot be pickled or copied"):
        pickle.dumps(model().transcribe)
