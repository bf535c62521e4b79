"""Fixtures of the tests on a GPU. `--device cpu` runs the same tests there, with the bundles for a GPU."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from filelock import FileLock

from conftest import ExportOnce
from gpu_cases import DIGITS, Case
from gpu_machine import DEVICES, missing
from speech_export.tensorrt.add_engines import add_engines
from speech_export.tensorrt.build import BuildOptions
from speech_runtime import OnnxSpeechSeq2Seq, ProfileLimits, SessionOptions, TensorRtOptions
from speech_runtime.backends.options import options_for
from speech_runtime.backends.tensorrt.library import import_tensorrt
from speech_runtime.bundle.manifest import Manifest
from weightless import unpack

LIMITS = ProfileLimits(batch=(1, 1, 4), beams=(1, 4, 5), seconds=(0.1, 3.0, 12.0), tokens=(1, 10, 64))
CPU = SessionOptions(intra_op_threads=4)
"""The device that all others are compared with."""

BundleOf = Callable[[Case], Path]
Load = Callable[..., OnnxSpeechSeq2Seq]
"""Function that loads the bundled model on a device; `half` for the one in half precision."""


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    """Yield each device; skip those that this machine lacks something for."""
    return usable(request, request.param)


@pytest.fixture
def cuda(request: pytest.FixtureRequest) -> str:
    """Return the device "cuda", or what takes its place; skip if this machine lacks something for it."""
    return usable(request, "cuda")


def usable(request: pytest.FixtureRequest, device: str) -> str:
    """Return `device`, or what `--device` puts in the place of "cuda"; skip if this machine lacks something for it."""
    instead: str | None = request.config.getoption("--device")
    if instead is not None and device != "cuda":
        pytest.skip(f"--device {instead} takes the place of cuda only")
    if reason := missing(instead or device):
        pytest.skip(reason)
    return instead or device


@pytest.fixture(scope="session")
def bundle_of(shared: Path, export_once: ExportOnce) -> BundleOf:
    """The bundle of a case: carried here by `make gpu-bundles`, or exported now if that takes seconds."""

    def make(case: Case) -> Path:
        if not case.archive.exists():
            if not case.quick:
                pytest.skip(
                    f"{case.archive} is not there: run `make gpu-bundles` on a machine without a GPU, and copy it"
                )
            return export_once(case.archive.name.removesuffix(".tar.xz"), case.model(), **case.settings)
        target = shared / "carried" / case.archive.name
        with FileLock(f"{shared / case.archive.name}.lock"):
            if not target.exists():
                shutil.rmtree(partial := target.with_name(f"{target.name}.partial"), ignore_errors=True)
                unpack(case.archive, partial)
                partial.rename(target)
        return target / "bundle"

    return make


@pytest.fixture(scope="module")
def load(bundle_of: BundleOf, tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Load the bundled model on a device, with engines built on this GPU."""

    @cache
    def directory(device: str, half: bool) -> Path:
        target = "cuda" if device in ("cpu", "cuda") else "tensorrt"
        exported = bundle_of(DIGITS[f"digits, {target}{', half' if half else ''}"])
        return exported if device != "engines" else with_engines(exported, tmp_path_factory)

    @cache
    def on(device: str, half: bool = False) -> OnnxSpeechSeq2Seq:
        if device == "engines":
            return OnnxSpeechSeq2Seq.from_pretrained(directory(device, half), device=device)
        options = CPU if device == "cpu" else options_for(device)
        if device in ("tensorrt", "tensorrt_rtx") and isinstance(options, SessionOptions):
            options = replace(options, tensorrt=TensorRtOptions(limits=LIMITS))
        return OnnxSpeechSeq2Seq.from_pretrained(directory(device, half), options=options)

    return on


@pytest.fixture
def on_cpu(load: Load) -> OnnxSpeechSeq2Seq:
    """The bundled model in float32 on the CPU, from the graphs for CUDA: what all others are compared with."""
    return load("cpu")


def with_engines(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy a bundle, and build engines for it on this GPU."""
    copy = Path(shutil.copytree(exported, tmp_path_factory.mktemp("engines") / "bundle"))
    replace(Manifest.read(copy), engines=()).write(copy)
    add_engines(copy, import_tensorrt(), BuildOptions(limits=LIMITS))
    return copy
