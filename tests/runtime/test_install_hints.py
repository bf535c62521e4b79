"""Test the install hints of errors: the extra to install, or that the platform has no such package."""

import sys
from types import SimpleNamespace

import pytest

from speech_runtime import install_hints
from speech_runtime.install_hints import how_to_install
from speech_runtime.install_hints import source as from_here  # before the tests' own, see conftest.py


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ('{"dir_info": {"editable": true}, "url": "file:///home/me/my%20code"}', "/home/me/my code"),
        ('{"archive_info": {}, "url": "file:///tmp/speech_export-0.2.0-py3-none-any.whl"}', "speech-export"),
        (None, "speech-export"),
        ("damaged", "speech-export"),
    ],
)
def test_a_checkout_is_installed_from(origin: str | None, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = SimpleNamespace(read_text=lambda name: origin if name == "direct_url.json" else None)
    monkeypatch.setattr(install_hints, "distribution", lambda name: found)
    assert from_here() == expected


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_what_every_platform_has(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    assert how_to_install("cpu", "audio") == "pip install 'speech-export[cpu,audio]'"


def test_another_command_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    remedy = "pip uninstall onnxruntime, then pip install 'speech-export[cuda]'"
    assert how_to_install("cuda", first="pip uninstall onnxruntime") == remedy


@pytest.mark.parametrize(
    ("extras", "absent"),
    [
        (("cuda",), "onnxruntime-gpu"),
        (("cuda", "tensorrt"), "onnxruntime-gpu and no TensorRT"),
        (("tensorrt-rtx",), "TensorRT-RTX"),
    ],
)
def test_macos_has_none_of_nvidia(extras: tuple[str, ...], absent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    remedy = f"there is no {absent} for macOS; export without --target and give device='cpu'"
    assert how_to_install(*extras, first="pip uninstall onnxruntime") == remedy
