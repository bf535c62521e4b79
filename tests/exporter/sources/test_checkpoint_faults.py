"""Test checkpoints with random faults: each is refused before tracing, or its bundle agrees with transformers."""

import json
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import SpeechEncoderDecoderModel

from conftest import ONE_THREAD
from speech_export import ExportError, export
from speech_export import export_bundle as pipeline
from speech_export.limits import Limits
from speech_runtime import AudioError, OnnxSpeechSeq2Seq
from tiny_checkpoint import save_tiny

pytestmark = pytest.mark.usefixtures("short_verification", "traced_once")

VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    3,
    10**9,
    0.5,
    float("nan"),
    "",
    "gelu",
    "nonsense",
    [],
    [2],
    {},
)
JSON_FILES = ("config.json", "generation_config.json", "preprocessor_config.json", "tokenizer_config.json")
WEIGHTS = "model.safetensors"
TRIES, ALL_TRIES, EXPORTS = 24, 1000, 6


class Reached(Exception):  # noqa: N818 - no error: the checkpoint would be traced now
    """Raised in place of tracing."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


def spoilt(original: Path, copy: Path, chance: random.Random) -> str:
    """Copy a checkpoint and change one thing; says which."""
    shutil.copytree(original, copy)
    faults: tuple[Callable[[Path, random.Random], str], ...] = (*[a_setting] * 6, *[a_tensor] * 3, a_file)
    return chance.choice(faults)(copy, chance)


def a_setting(copy: Path, chance: random.Random) -> str:
    path = copy / chance.choice(JSON_FILES)
    content: dict[str, Any] = json.loads(path.read_text())
    fields = content
    if path.name == "config.json" and chance.random() < 0.8:
        fields = content[chance.choice(("encoder", "decoder"))]
    name = chance.choice(sorted(fields))
    value = chance.choice((*VALUES, *([fields[name] * 2, fields[name] + 1] if isinstance(fields[name], int) else [])))
    gone = chance.random() < 0.2
    if gone:
        del fields[name]
    else:
        fields[name] = value
    path.write_text(json.dumps(content))
    return f"{path.name}: {name} {'gone' if gone else repr(value)}"


def a_tensor(copy: Path, chance: random.Random) -> str:
    weights = load_file(copy / WEIGHTS)
    name = chance.choice(sorted(weights))
    tensor = weights.pop(name)
    kind = chance.choice(("lost", "renamed", "narrow", "nan", "half", "double", "byte", "flat", "more"))
    changes: dict[str, Callable[[], dict[str, torch.Tensor]]] = {
        "renamed": lambda: {f"{name}.old": tensor},
        "narrow": lambda: {name: tensor[:-1].contiguous()},
        "nan": lambda: {name: tensor.float() * float("nan")},
        "half": lambda: {name: tensor.half()},
        "double": lambda: {name: tensor.double()},
        "byte": lambda: {name: tensor.to(torch.int8)},
        "flat": lambda: {name: tensor.flatten()},
        "more": lambda: {name: tensor, name.replace(".0.", ".7."): tensor.clone()},
        "lost": dict,
    }
    save_file(weights | changes[kind](), copy / WEIGHTS, {"format": "pt"})
    return f"{name} {kind}"


def a_file(copy: Path, chance: random.Random) -> str:
    path = copy / chance.choice(sorted(path.name for path in copy.iterdir()))
    content = path.read_bytes()
    kind = chance.choice(("lost", "empty", "cut", "null", "list", "bytes"))
    if kind == "lost":
        path.unlink()
    else:
        other = {"empty": b"", "cut": content[: len(content) // 2], "null": b"null", "list": b"[1]", "bytes": b"\xff\0"}
        path.write_bytes(other[kind])
    return f"{path.name} {kind}"


@contextmanager
def no_tracing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def reached(*_: object) -> None:
        raise Reached

    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "trace", reached)
        yield


def outcome(copy: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """`refused` in words, or `reached` tracing; anything else is raised."""
    try:
        with no_tracing(monkeypatch):
            export(str(copy), bundle)
    except ExportError:
        return "refused"
    except Reached:
        return "reached"
    raise AssertionError("it was exported without tracing")


def tried(seeds: range, tiny: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Counter[str], list[Path]]:
    """Outcomes of faults, and the checkpoints that would be traced."""
    tally: Counter[str] = Counter()
    good = []
    for seed in seeds:
        copy = folder / str(seed)
        fault = spoilt(tiny, copy, random.Random(seed))  # noqa: S311 - no secret
        try:
            found = outcome(copy, folder / "bundle", monkeypatch)
        except Exception as error:
            raise AssertionError(f"seed {seed}, {fault}: {type(error).__name__}: {error}") from error
        tally[found] += 1
        if found == "reached":
            good.append(copy)
        else:
            shutil.rmtree(copy)
    assert not (folder / "bundle").exists()
    return tally, good


def test_a_checkpoint_with_a_fault_is_refused_in_words(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    tally, _ = tried(range(TRIES), tiny, tmp_path, monkeypatch)
    record_property("faults of checkpoints", dict(tally))
    assert tally["refused"] >= TRIES // 4
    assert sum(tally.values()) == TRIES


@pytest.mark.full
def test_or_its_bundle_says_what_transformers_says(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    tally, good = tried(range(TRIES, ALL_TRIES), tiny, tmp_path, monkeypatch)
    audio = np.random.default_rng(5).standard_normal((2, 1200)).astype(np.float32)
    for copy in good[:: max(1, len(good) // EXPORTS)]:
        try:
            bundle = export(str(copy), copy / "bundle").directory
        except ExportError:
            tally["refused late"] += 1
            continue
        model = SpeechEncoderDecoderModel.from_pretrained(copy).eval()
        found = OnnxSpeechSeq2Seq.from_pretrained(bundle, options=ONE_THREAD).generate(audio, max_new_tokens=8)
        expected = model.generate(torch.from_numpy(audio), max_new_tokens=8, return_dict_in_generate=False)
        np.testing.assert_array_equal(found, expected)
        tally["equal"] += 1
    record_property("faults of checkpoints", dict(tally))
    assert tally["equal"] > 0


def edited(original: Path, copy: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy with another config.json."""
    shutil.copytree(original, copy)
    content = json.loads((copy / "config.json").read_text())
    change(content)
    (copy / "config.json").write_text(json.dumps(content))
    return copy


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config.pop("decoder"), "config.json has no decoder"),
        (lambda config: config.pop("encoder"), "config.json has no encoder"),
        (
            lambda config: config.update(decoder_start_token_id="0"),
            "config.json of .*copy: decoder_start_token_id is '0', it must be a token id; correct it",
        ),
        (lambda config: config.update(pad_token_id=1.5), "config.json of .*copy: pad_token_id is 1.5"),
    ],
)
def test_what_is_wrong_in_the_configuration_is_said_before_tracing(
    tiny: Path,
    tmp_path: Path,
    change: Callable[[dict[str, Any]], object],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copy = edited(tiny, tmp_path / "copy", change)
    with no_tracing(monkeypatch), pytest.raises(ExportError, match=message):
        export(copy, tmp_path / "bundle")


def test_an_unknown_token_that_is_unknown_is_refused(tiny: Path, tmp_path: Path) -> None:
    """Another name would be added to the tokenizer's tokens; the empty one cannot be."""
    shutil.copytree(tiny, tmp_path / "copy")
    path = tmp_path / "copy" / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "unk_token": ""}))
    with pytest.raises(ExportError, match="its unk_token is '', which is not one of its tokens.*--processor"):
        export(str(tmp_path / "copy"), tmp_path / "bundle")


def test_audio_that_is_not_there_is_said_before_tracing(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with no_tracing(monkeypatch):
        with pytest.raises(AudioError, match="nofile"):
            export(tiny, tmp_path / "bundle", audio=[tmp_path / "nofile.wav"])
        with pytest.raises(Reached):
            export(tiny, tmp_path / "bundle")


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"logprob_difference": float("nan")}, r"logprob_difference is nan; give 0 or more \(--tolerance"),
        ({"logprob_difference": -1.0}, "logprob_difference is -1"),
        ({"agreement": float("nan")}, r"agreement is nan; give 0 to 1 \(--min-agreement"),
        ({"agreement": 1.1}, "agreement is 1.1"),
        ({"agreement": -0.1}, "agreement is -0.1"),
        ({"torch_roundings": float("nan")}, "torch_roundings is nan"),
    ],
)
def test_limits_that_are_none_are_refused(limits: dict[str, float], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        Limits(**limits)
