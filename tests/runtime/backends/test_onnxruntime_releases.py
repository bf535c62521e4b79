"""Test that a bundle is not loaded by an ONNX Runtime without the kernels for it."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from handmade_bundle import DECODER, make_bundle
from speech_runtime import Bundle, EngineError
from speech_runtime.backends.onnxruntime.releases import check_release, release


def test_a_release_has_two_numbers() -> None:
    assert [release(SimpleNamespace(__version__=each)) for each in ("1.31.1", "1.30.0.dev20260801+cu130")] == [
        (1, 31),
        (1, 30),
    ]


@pytest.mark.parametrize(("cache", "version"), [("tree", "1.30.0"), ("tree", "2.0.0"), ("growing", "1.23.2")])
def test_what_is_new_enough_is_taken(cache: str, version: str, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", target="cuda", decoder=replace(DECODER, cache=cache))
    check_release(SimpleNamespace(__version__=version), Bundle.open(bundle))


@pytest.mark.parametrize("version", ["1.23.2", "1.29.1"])
def test_what_is_too_old_is_refused(version: str, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", target="cuda", decoder=replace(DECODER, cache="tree"))
    said = rf"needs ONNX Runtime 1\.30 or later, and {version} is installed: pip install .*--upgrade, or export .*"
    with pytest.raises(EngineError, match=said):
        check_release(SimpleNamespace(__version__=version), Bundle.open(bundle))
