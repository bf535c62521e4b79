"""Test that CPUs without exact int8 sums are detected, and that ONNX Runtime is told."""

import platform
from pathlib import Path

import pytest

from speech_runtime import system


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", "fpu sse avx2", True),
        ("x86_64", "fpu avx2 avx512f avx512_vnni", False),
        ("x86_64", "fpu avx2 avx_vnni", False),
        ("AMD64", None, True),
        ("aarch64", "fp asimd", False),
    ],
)
def test_vnni_is_found(
    machine: str, flags: str | None, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    if flags is not None:
        cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(system, "_CPUINFO", cpuinfo)
    assert system.bytes_saturate.__wrapped__() is expected
