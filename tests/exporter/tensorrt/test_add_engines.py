"""Test that engines are added to a bundle all at once or not at all. TensorRT is a stub."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from handmade_bundle import make_bundle
from speech_export import ExportError
from speech_export.tensorrt import add_engines as engines
from speech_export.tensorrt.add_engines import add_engines
from speech_export.tensorrt.build import BuildOptions
from speech_runtime import Bundle, BundleError
from speech_runtime.backends.tensorrt.library import TensorRt
from speech_runtime.backends.tensorrt.profiles import Profile, graph_profiles
from speech_runtime.bundle.graph_io import GRAPHS
from speech_runtime.bundle.profile_limits import ProfileLimits

CAPABILITIES = SimpleNamespace(__members__={"SM75": 75, "SM89": 89, "SM120": 120, "CURRENT": 1, "NONE": 0})
RTX = TensorRt("tensorrt_rtx", SimpleNamespace(__version__="1.7.1", ComputeCapability=CAPABILITIES))
TENSORRT = TensorRt("tensorrt", SimpleNamespace(__version__="10.13", ComputeCapability=CAPABILITIES))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle", target="tensorrt")


@pytest.fixture(autouse=True)
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines that are written at once, and a GPU."""

    def build(library: Any, graph: Path, profiles: Sequence[Profile], output: Path, *_: Any) -> None:
        output.write_text(f"{graph.name} {len(profiles)}")

    monkeypatch.setattr(engines, "build_engine", build)
    monkeypatch.setattr(engines, "Cuda", lambda: SimpleNamespace(compute_capability="8.9"))


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_engines_and_what_they_were_built_with_are_in_the_manifest(directory: Path) -> None:
    limits = ProfileLimits(batch=(1, 1, 2))
    add_engines(directory, RTX, BuildOptions(limits=limits, tf32=True))
    bundle = Bundle.open(directory)
    (built,) = bundle.manifest.engines
    assert (built.flavor, built.version, built.compute_capabilities) == ("tensorrt_rtx", "1.7.1", ())
    assert (built.weights, built.tf32, built.limits) == ("included", True, limits)
    assert built.profiles == graph_profiles(bundle, limits)
    assert built.graphs == {f"{graph}.onnx": bundle.manifest.files[f"{graph}.onnx"].sha256 for graph in GRAPHS}
    assert [bundle.path(path).read_text() for path in built.paths] == [
        f"{name}.onnx {2 if name == 'decoder_with_past' else 1}" for name in sorted(GRAPHS)
    ]
    assert [path.name for path in directory.parent.iterdir()] == ["bundle"]


def test_new_engines_take_the_place_of_those_for_the_same_gpus_only(directory: Path) -> None:
    first = add_engines(directory, RTX)
    others = [
        add_engines(directory, TENSORRT),
        add_engines(directory, RTX, BuildOptions(compute_capabilities=("8.9", "12.0"))),
    ]
    again = add_engines(directory, RTX)
    assert Bundle.open(directory).manifest.engines == (*others, again)
    assert others[0].compute_capabilities == ("8.9",)
    kept = {engine_set.directory for engine_set in (*others, again)}
    assert {path.name for path in (directory / "engines").iterdir()} == kept
    assert first.directory not in kept


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, ExportError])
def test_an_interrupted_build_leaves_the_bundle_as_it_was(
    directory: Path, interruption: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_engines(directory, RTX)
    before = contents(directory)

    def fail(_: Any, graph: Path, profiles: Any, output: Path, *__: Any) -> None:
        output.write_text("half")
        if graph.name == "decoder_with_past.onnx":
            raise interruption

    monkeypatch.setattr(engines, "build_engine", fail)
    with pytest.raises(interruption):
        add_engines(directory, RTX)
    assert contents(directory) == before
    assert [path.name for path in directory.parent.iterdir()] == ["bundle"]


def test_an_interruption_while_they_are_entered_leaves_it_too(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(directory)

    def interrupted(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)  # of the manifest
    with pytest.raises(KeyboardInterrupt):
        add_engines(directory, RTX)
    assert contents(directory) == before


def test_a_damaged_bundle_gets_no_engines(directory: Path) -> None:
    (directory / "encoder.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match="is damaged"):
        add_engines(directory, RTX)


@pytest.mark.parametrize(
    ("library", "options", "message"),
    [
        (RTX, {"timing_cache": Path("cache")}, "leave out --trt-timing-cache"),
        (RTX, {"compute_capabilities": ("8.5",)}, r"does not know the compute capability '8.5'; .* 7.5, 8.9, 12.0"),
        (TENSORRT, {"compute_capabilities": ("8.9",)}, "TensorRT builds for the GPU of this machine only"),
    ],
)
def test_what_the_library_cannot_do_is_refused_first(
    library: TensorRt, options: dict[str, Any], message: str, directory: Path
) -> None:
    with pytest.raises(ExportError, match=message):
        add_engines(directory, library, BuildOptions(**options))
    assert not (directory / "engines").exists()


@pytest.mark.parametrize("field", ["directory", "files"])
def test_engines_outside_the_bundle_are_refused(field: str, directory: Path) -> None:
    built = add_engines(directory, RTX)
    manifest = directory / "bundle.json"
    stray = built.directory if field == "directory" else "encoder.engine"
    manifest.write_text(manifest.read_text().replace(f'"{stray}"', '"../elsewhere"'))
    with pytest.raises(BundleError, match="'../elsewhere' points outside the bundle"):
        Bundle.open(directory)
