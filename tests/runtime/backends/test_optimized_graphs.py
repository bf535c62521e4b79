"""Test the cache of optimised graphs: used when it matches, ignored when stale, and never an obstacle."""

import logging
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from handmade_bundle import WIDTH, make_bundle
from speech_runtime import Bundle, BundleError, SessionOptions
from speech_runtime.backends.onnxruntime import optimized_graphs
from speech_runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from speech_runtime.backends.onnxruntime.optimized_graphs import cache_entry
from speech_runtime.bundle.graph_io import ENCODER, ENCODER_HIDDEN_STATES, GRAPHS


@pytest.fixture(params=[False, True], ids=["one-file", "external-data"])
def bundle(tmp_path: Path, request: pytest.FixtureRequest) -> Bundle:
    return Bundle.open(make_bundle(tmp_path / "bundle", external_data=request.param))


@pytest.fixture
def cached(tmp_path: Path) -> SessionOptions:
    return SessionOptions(optimized_model_cache=tmp_path / "cache", intra_op_threads=1)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, Any]]:
    """Record the graphs that ONNX Runtime loads, and the level at which it optimises them."""
    seen: list[tuple[Path, Any]] = []
    genuine = onnxruntime.InferenceSession

    def load(path: str, settings: Any, **options: Any) -> Any:
        seen.append((Path(path), settings.graph_optimization_level))
        return genuine(path, settings, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", load)
    return seen


def answer(backend: OnnxRuntimeBackend) -> Any:
    rows = np.random.default_rng(0).standard_normal((3, WIDTH)).astype(np.float32)
    inputs = {"input_values": backend.upload(rows), "attention_mask": backend.upload(rows)}
    return backend.download(backend.run(ENCODER, inputs, [ENCODER_HIDDEN_STATES])[ENCODER_HIDDEN_STATES])


def entries(options: SessionOptions) -> list[Path]:
    return sorted(Path(str(options.optimized_model_cache)).iterdir())


def test_the_second_load_reads_what_the_first_wrote(
    bundle: Bundle, cached: SessionOptions, loaded: list[tuple[Path, Any]]
) -> None:
    levels = onnxruntime.GraphOptimizationLevel
    expected = answer(OnnxRuntimeBackend(bundle, SessionOptions(intra_op_threads=1)))
    loaded.clear()
    np.testing.assert_array_equal(answer(OnnxRuntimeBackend(bundle, cached)), expected)
    assert loaded == [(bundle.path(f"{graph}.onnx"), levels.ORT_ENABLE_ALL) for graph in GRAPHS]
    assert [entry.name.rpartition("-")[0] for entry in entries(cached)] == sorted(GRAPHS)
    loaded.clear()
    np.testing.assert_array_equal(answer(OnnxRuntimeBackend(bundle, cached)), expected)
    assert [level for _, level in loaded] == [levels.ORT_DISABLE_ALL] * len(GRAPHS)
    assert bundle.directory not in [path.parent for path, _ in loaded]
    optimized = onnx.load(next(entries(cached)[-1].glob("encoder.onnx")), load_external_data=False)
    assert "Add" not in [node.op_type for node in optimized.graph.node]


def test_an_entry_is_readable_by_all_and_has_its_weights_beside_it(bundle: Bundle, cached: SessionOptions) -> None:
    OnnxRuntimeBackend(bundle, cached)
    for entry in entries(cached):
        assert stat.S_IMODE(entry.stat().st_mode) == 0o755
        graph = entry.name.rpartition("-")[0]
        assert sorted(path.name for path in entry.iterdir()) == sorted(
            ["files.json", f"{graph}.onnx", f"{graph}.onnx.data"]
        )


@pytest.mark.parametrize(
    "change",
    [
        lambda bundle, options: (Bundle.open(remade(bundle)), options, "1.0"),
        lambda bundle, options: (bundle, options, "1.1"),
        lambda bundle, options: (bundle, SessionOptions(graph_optimization="basic", optimized_model_cache="c"), "1.0"),
        lambda bundle, options: (bundle, SessionOptions(device="cuda", optimized_model_cache="c"), "1.0"),
        lambda bundle, options: (
            bundle,
            SessionOptions(providers=(("CPUExecutionProvider", {"x": 1}),), optimized_model_cache="c"),
            "1.0",
        ),
    ],
    ids=["weights", "release", "level", "device", "provider options"],
)
def test_what_the_optimisation_depends_on_is_in_the_name(bundle: Bundle, change: Callable[..., Any]) -> None:
    options = SessionOptions(optimized_model_cache="c")
    known = cache_entry(bundle, ENCODER, options, "1.0", 2)
    assert cache_entry(bundle, ENCODER, options, "1.0", 4) != known
    assert (
        cache_entry(bundle, ENCODER, SessionOptions(optimized_model_cache="c", memory_pattern=True), "1.0", 2) == known
    )
    changed_bundle, changed_options, release = change(bundle, options)
    assert cache_entry(changed_bundle, ENCODER, changed_options, release, 2) != known


def remade(bundle: Bundle) -> Path:
    """Copy the bundle with other weights, inside the graph or in another file."""
    directory = bundle.directory.with_name("remade")
    shutil.copytree(bundle.directory, directory)
    weights = directory / ("encoder.onnx.data" if bundle.has("encoder.onnx.data") else "encoder.onnx")
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    manifest = Bundle.open(directory, check_hashes=False).manifest
    manifest.files[weights.name] = type(manifest.files[weights.name]).of(weights)
    manifest.write(directory)
    return directory


def test_another_processor_has_entries_of_its_own(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    options = SessionOptions(optimized_model_cache="c")
    known = cache_entry(bundle, ENCODER, options, "1.0", 2)
    with monkeypatch.context() as patch:
        patch.setattr(optimized_graphs.np, "show_config", lambda mode: {"SIMD Extensions": {"found": ["SVE"]}})
        assert cache_entry(bundle, ENCODER, options, "1.0", 2) != known
    monkeypatch.setattr(optimized_graphs, "instruction_sets", lambda: frozenset({"avx", "another"}))
    assert cache_entry(bundle, ENCODER, options, "1.0", 2) != known


def piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def changed_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("encoder.onnx.data", lambda path: path.write_bytes(path.read_bytes()[:100])),
        ("encoder.onnx.data", changed_byte),
        ("encoder.onnx", changed_byte),
        ("files.json", lambda path: path.write_text("[" * 100_000)),
        ("files.json", lambda path: path.write_text("{}")),
        ("files.json", Path.unlink),
        ("encoder.onnx", piped),
        ("encoder.onnx", lambda path: path.with_name("more").write_text("")),
    ],
    ids=["cut", "byte", "byte of the graph", "nested facts", "no facts", "facts missing", "pipe", "one file more"],
)
def test_a_changed_entry_is_never_loaded_and_written_again(
    file: str,
    change: Callable[[Path], object],
    bundle: Bundle,
    cached: SessionOptions,
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = answer(OnnxRuntimeBackend(bundle, cached))
    entry = next(entry for entry in entries(cached) if entry.name.startswith("encoder"))
    damaged = entry / file
    whole = {path.name: path.read_bytes() for path in entry.iterdir()}
    change(damaged)
    np.testing.assert_array_equal(answer(OnnxRuntimeBackend(bundle, cached)), expected)
    assert "is not used, and written again" in caplog.text
    assert {path.name: path.read_bytes() for path in entry.iterdir()} == whole


def test_a_cache_that_cannot_be_written_is_logged(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    backend = OnnxRuntimeBackend(bundle, SessionOptions(optimized_model_cache=tmp_path / "file" / "cache"))
    assert answer(backend).shape == (3, WIDTH)
    assert "file/cache is not used: " in caplog.text


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_cache_that_others_may_write_is_not_used(
    mode: int, bundle: Bundle, cached: SessionOptions, caplog: pytest.LogCaptureFixture
) -> None:
    OnnxRuntimeBackend(bundle, cached)
    cache = Path(str(cached.optimized_model_cache))
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    cache.chmod(mode)
    assert answer(OnnxRuntimeBackend(bundle, cached)).shape == (3, WIDTH)
    assert "cache is not used: other users may write to it" in caplog.text


def test_a_graph_that_cannot_be_saved_is_loaded_all_the_same(
    bundle: Bundle, cached: SessionOptions, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = onnxruntime.InferenceSession

    def refuse_to_save(path: str, settings: Any, **options: Any) -> Any:
        if settings.optimized_model_filepath:
            Path(settings.optimized_model_filepath).write_text("half a graph")
            raise OSError("No space left on device")
        return genuine(path, settings, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse_to_save)
    assert answer(OnnxRuntimeBackend(bundle, cached)).shape == (3, WIDTH)
    assert "The optimised encoder.onnx cannot be written: " in caplog.text
    assert entries(cached) == []


def test_two_processes_at_once_do_not_disturb_each_other(
    bundle: Bundle, cached: SessionOptions, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = onnxruntime.InferenceSession
    faster: list[OnnxRuntimeBackend] = []

    def overtaken(path: str, settings: Any, **options: Any) -> Any:
        session = genuine(path, settings, **options)
        monkeypatch.setattr(onnxruntime, "InferenceSession", genuine)
        if not faster:
            faster.append(OnnxRuntimeBackend(bundle, cached))
        return session

    monkeypatch.setattr(onnxruntime, "InferenceSession", overtaken)
    np.testing.assert_array_equal(answer(OnnxRuntimeBackend(bundle, cached)), answer(faster[0]))
    assert len(entries(cached)) == len(GRAPHS)
    assert caplog.records == []


def test_a_damaged_graph_is_the_bundles_fault(cached: SessionOptions, tmp_path: Path) -> None:
    directory = make_bundle(tmp_path / "damaged")
    path = directory / "encoder.onnx"
    path.write_bytes(b"\xff" * path.stat().st_size)
    with pytest.raises(BundleError, match=r"damaged/encoder\.onnx cannot be loaded"):
        OnnxRuntimeBackend(Bundle.open(directory, check_hashes=False), cached)
    assert entries(cached) == []


def test_nothing_is_logged_where_all_is_well(
    bundle: Bundle, cached: SessionOptions, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        OnnxRuntimeBackend(bundle, cached)
        OnnxRuntimeBackend(bundle, cached)
    assert caplog.records == []
