"""Lists of clips: what is taken for a list, without a model."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speech_runtime import AudioError
from speech_runtime.many import Steps, transcribe_many


def echoing() -> Any:
    """Steps that load a clip as it is, and hear it in itself."""
    return Steps(16000, lambda clip: np.asarray(clip.audio), lambda _: True, lambda clips: clips)


@pytest.mark.parametrize(
    "clip",
    ["x.wav", Path("x.wav"), b"RIFF", io.BytesIO(b"RIFF"), np.ones(8, np.float32), {"array": [0.1]}],
    ids=["name", "path", "bytes", "open file", "samples", "dict"],
)
def test_one_clip_is_no_list(clip: Any) -> None:
    with pytest.raises(AudioError, match=r"takes a list of clips, and got one; give it as \[audio\]"):
        transcribe_many(clip, echoing(), 8, {})


@pytest.mark.parametrize(
    ("clips", "count"),
    [(["x.wav", "y.wav"], 2), (("x.wav",), 1), (np.ones((2, 8)), 2), (iter("ab"), 2), ([], 0)],
    ids=["list", "tuple", "rows", "iterator", "empty"],
)
def test_any_list_is_one(clips: Any, count: int) -> None:
    assert len(list(transcribe_many(clips, echoing(), 8, {}))) == count
