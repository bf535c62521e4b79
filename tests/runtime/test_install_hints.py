"""Test the install hints of errors: the extra to install, or that the platform has no such package."""

import sys

import pytest

from speech_runtime.install_hints import how_to_install


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
