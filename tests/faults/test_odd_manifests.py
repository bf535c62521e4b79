"""Test altered manifests and configurations: each is refused with a `BundleError`, quickly, or read unchanged."""

import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from handmade_bundle import make_bundle
from speech_runtime import Bundle, BundleError, SpeechError
from speech_runtime.bundle.loading import load_whole
from speech_runtime.bundle.manifest import GENERATION_CONFIG, MANIFEST, PREPROCESSOR_CONFIG, TOKENIZER
from speech_runtime.bundle.safe_files import FileFacts
from speech_runtime.cli.describe import summarize

TRIES, MANY = 400, 20_000


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle")


def rewritten(path: Path, text: str) -> None:
    """The file with another text, as the manifest of its bundle says."""
    path.write_text(text)
    if path.name != MANIFEST:
        manifest = json.loads((path.parent / MANIFEST).read_text())
        manifest["files"][path.name] = vars(FileFacts.of(path))
        (path.parent / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "replace",
    [
        os.mkfifo,
        Path.mkdir,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to(path),
        lambda path: path.symlink_to("/dev/tty"),
    ],
    ids=["pipe", "directory", "device", "loop", "terminal"],
)
@pytest.mark.parametrize("name", [MANIFEST, GENERATION_CONFIG, PREPROCESSOR_CONFIG, TOKENIZER, "encoder.onnx"])
def test_what_is_no_file_is_refused(name: str, replace: Callable[[Path], object], bundle: Path) -> None:
    (bundle / name).unlink()
    replace(bundle / name)
    for check_hashes in (True, False):
        with pytest.raises(BundleError, match=name):
            Bundle.open(bundle, check_hashes=check_hashes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('{"a":' * 50_000 + "1" + "}" * 50_000, "nested too deeply"),
        ('{"num_beams": 1, "num_beams": 2}', "it has the key 'num_beams' twice"),
        ("{" + ",".join(f'"k{i}": {i}' for i in [*range(100_000), 99_999]) + "}", "it has the key 'k99999' twice"),
        ('{"num_beams": 1e999}', "the number 1e999 is too large"),
        ('{"num_beams": ' + "9" * 10_000 + "}", "cannot be read"),
        ("[]", "not an object|type None|version None"),
        ("null", "not an object|type None|version None"),
        ("7", "not an object|type None|version None"),
        ('"' + "x" * (17 * 2**20) + '"', "more than 16,777,216 bytes"),
        ("", "cannot be read"),
    ],
    ids=lambda value: str(value)[:12],
)
@pytest.mark.parametrize("name", [MANIFEST, GENERATION_CONFIG, PREPROCESSOR_CONFIG])
def test_odd_json_is_refused(name: str, text: str, message: str, bundle: Path) -> None:
    rewritten(bundle / name, text)
    with pytest.raises(SpeechError, match=message) as refused:
        load_whole(bundle, summarize)
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize("where", ["files", "engines"])
def test_a_hundred_thousand_bad_names_are_refused_at_once(where: str, bundle: Path) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    names = {f"../{i}": {"size": 1, "sha256": ""} for i in range(100_000)}
    if where == "files":
        manifest["files"] |= names
    else:
        manifest |= dict.fromkeys(names, 1)
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    begin = time.perf_counter()
    with pytest.raises(BundleError, match="more") as refused:
        Bundle.open(bundle)
    assert time.perf_counter() - begin < 10
    assert len(str(refused.value)) < 3000


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "/etc/passwd", "a/b", "a\\b", "a\0b", "\ud800", "a\nb", "x" * 300]
)
def test_names_that_no_file_of_a_bundle_has_are_refused(name: str, bundle: Path) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["files"][name] = {"size": 0, "sha256": ""}
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="points outside the bundle|cannot be read"):
        Bundle.open(bundle)


@pytest.mark.parametrize("value", [0, -1, 10**9, 2**62, 10**300])
@pytest.mark.parametrize("field", ["layers", "heads", "head_dim", "vocab_size", "top_k"])
def test_sizes_that_no_model_has_are_refused(field: str, value: int, bundle: Path) -> None:
    if field in ("head_dim", "vocab_size", "top_k") and value == 10**9:
        value = 10**10
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["decoder"][field] = value
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=f"decoder.{field} is "):
        Bundle.open(bundle)


ODD: list[Any] = [None, True, -1, 0, 2**63, 1.5, float("nan"), float("inf"), "", "x", "\0", [], {}, [[]], 10**400]


def mutated(value: Any, dice: random.Random) -> Any:
    """The same JSON with one thing changed."""
    if isinstance(value, dict) and value and dice.random() < 0.8:
        key = dice.choice(list(value))
        if dice.random() < 0.2:
            return {name: item for name, item in value.items() if name != key}
        return {**value, key: mutated(value[key], dice)}
    if isinstance(value, list) and value and dice.random() < 0.7:
        place = dice.randrange(len(value))
        return [*value[:place], mutated(value[place], dice), *value[place + 1 :]]
    return dice.choice(ODD)


def mutated_bytes(content: bytes, dice: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(dice.randint(1, 4)):
        place = dice.randrange(len(changed))
        match dice.randrange(4):
            case 0:
                changed[place] = dice.randrange(256)
            case 1:
                del changed[place : place + dice.randint(1, 20)]
            case 2:
                changed[place:place] = changed[: dice.randint(1, 20)]
            case _:
                del changed[place:]
        changed = changed or bytearray(b" ")
    return bytes(changed)


@pytest.mark.parametrize("tries", [TRIES, pytest.param(MANY, marks=pytest.mark.full)])
@pytest.mark.parametrize("name", [MANIFEST, GENERATION_CONFIG, PREPROCESSOR_CONFIG, TOKENIZER])
def test_mutations_are_refused_or_read(name: str, tries: int, bundle: Path) -> None:
    dice, outcomes = random.Random(tries), Counter[str]()  # noqa: S311
    manifest, original = (bundle / MANIFEST).read_text(), (bundle / name).read_bytes()
    for _ in range(tries):
        (bundle / MANIFEST).write_text(manifest)
        if dice.random() < 0.5:
            text = json.dumps(mutated(json.loads(original), dice))
        else:
            text = mutated_bytes(original, dice).decode("utf-8", "replace")
        rewritten(bundle / name, text)
        begin = time.perf_counter()
        try:
            load_whole(bundle, summarize)
            outcomes["read"] += 1
        except SpeechError:
            outcomes["refused"] += 1
        assert time.perf_counter() - begin < 10
    assert outcomes.total() == tries
