"""Test engines that ONNX Runtime caches itself: it only finds engines that were written here.

The sessions are fakes that write the files that TensorRT would, and record the files that they found.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import onnxruntime
import pytest

from handmade_bundle import make_bundle
from speech_runtime import Bundle, EngineError, SessionOptions, TensorRtOptions
from speech_runtime.backends import cache_directory
from speech_runtime.backends.cache_directory import RECORD
from speech_runtime.backends.onnxruntime import providers, sessions
from speech_runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from speech_runtime.backends.onnxruntime.graph_providers import engine_cache
from speech_runtime.backends.onnxruntime.sessions import SessionLoader
from speech_runtime.backends.options import CPU, CUDA, TENSORRT, TENSORRT_RTX
from speech_runtime.bundle.graph_io import ENCODER, GRAPHS

GENUINE = onnxruntime.InferenceSession
AT_END = "compiled at the end"


class FakeSession:
    """Builds an engine if it finds none, and writes its compiled kernels when it is closed."""

    found: list[str] = []  # noqa: RUF012 - a fixture replaces it
    built: list[str] = []  # noqa: RUF012
    of_plugin: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, path: str, settings: Any, providers: list[Any] | None, enable_fallback: int) -> None:
        providers = providers or list(FakeSession.of_plugin.items())
        self._asked = [name for name, _ in providers]
        options = dict(providers)[self._asked[0]]
        self._cache = Path(options["nv_runtime_cache_path" if TENSORRT_RTX in self._asked else "trt_engine_cache_path"])
        self.graph = Path(path).stem
        self._real = GENUINE(path, providers=[CPU])
        FakeSession.found += sorted(file.name for file in self._cache.iterdir() if file.name != RECORD)
        if TENSORRT in self._asked and not (self._cache / f"{self.graph}.engine").exists():
            (self._cache / f"{self.graph}.engine").write_text(f"engine of {self.graph}")
            FakeSession.built.append(self.graph)

    def disable_fallback(self) -> None:
        """It has none."""

    def build_more(self) -> None:
        (self._cache / f"{self.graph}.engine").write_text(f"larger engine of {self.graph}")

    def __del__(self) -> None:
        if TENSORRT_RTX in self._asked:
            (self._cache / f"{self.graph}.cache").write_text(AT_END)

    def get_providers(self) -> list[str]:
        return [name for name in self._asked if name != CPU] + [CPU]

    def get_inputs(self) -> list[Any]:
        return list(self._real.get_inputs())

    def get_outputs(self) -> list[Any]:
        return list(self._real.get_outputs())


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeSession, "found", [])
    monkeypatch.setattr(FakeSession, "built", [])
    monkeypatch.setattr(onnxruntime, "InferenceSession", FakeSession)
    monkeypatch.setattr(sessions, "plugin_device", lambda *_: object())
    monkeypatch.setattr(
        SessionLoader, "_use_plugin", lambda _, __, providers: monkeypatch.setattr(FakeSession, "of_plugin", providers)
    )
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, TENSORRT_RTX, CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    for module in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, module, SimpleNamespace())
    monkeypatch.setattr(providers, "_DRIVER", "libc.so.6")  # exists everywhere


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.open(make_bundle(tmp_path / "bundle", target="tensorrt"))


@pytest.fixture
def options(tmp_path: Path) -> SessionOptions:
    return SessionOptions(device="tensorrt", tensorrt=TensorRtOptions(engine_cache=tmp_path / "cache"))


def directory_of(options: SessionOptions, bundle: Bundle) -> Path:
    directory = engine_cache(options.tensorrt, bundle, onnxruntime.__version__)
    assert directory is not None
    return directory


def load(bundle: Bundle, options: SessionOptions, **keywords: Any) -> list[str]:
    """Load the backend, drop it, and return the graphs whose engines were built."""
    FakeSession.found, FakeSession.built = [], []
    OnnxRuntimeBackend(bundle, options, **keywords)
    return FakeSession.built


def test_engines_are_built_once_where_nobody_else_may_look(
    bundle: Bundle, options: SessionOptions, caplog: pytest.LogCaptureFixture
) -> None:
    assert load(bundle, options) == list(GRAPHS)
    assert load(bundle, options) == []
    directory = directory_of(options, bundle)
    assert [path.stat().st_mode & 0o777 for path in (directory, directory.parent)] == [0o700, 0o700]
    assert set(json.loads((directory / RECORD).read_text())) == {f"{graph}.engine" for graph in GRAPHS}
    assert caplog.records == []


def linked(path: Path) -> None:
    evil = path.parent.parent / "evil"
    evil.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(evil)
    evil.write_text("engine of nobody")


def piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "file").write_text("")


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_text("Engine of encoder"),
        lambda path: path.write_text("engine"),
        linked,
        piped,
        a_directory,
        Path.unlink,
    ],
    ids=["byte", "cut", "link", "pipe", "directory", "missing"],
)
def test_an_engine_that_was_changed_is_built_again(
    change: Callable[[Path], object], bundle: Bundle, options: SessionOptions, caplog: pytest.LogCaptureFixture
) -> None:
    load(bundle, options)
    engine = directory_of(options, bundle) / f"{ENCODER}.engine"
    change(engine)
    assert load(bundle, options) == [ENCODER]
    assert f"{ENCODER}.engine" in caplog.text
    assert "they are removed, and built again" in caplog.text
    assert engine.read_text() == "engine of encoder"
    assert load(bundle, options) == []


def test_without_hashes_sizes_are_compared(bundle: Bundle, options: SessionOptions) -> None:
    load(bundle, options)
    engine = directory_of(options, bundle) / f"{ENCODER}.engine"
    engine.write_text("Engine of encoder")
    assert load(bundle, options, check_hashes=False) == []
    engine.write_text("engine")
    assert load(bundle, options, check_hashes=False) == [ENCODER]


@pytest.mark.parametrize(
    "damage",
    [Path.unlink, lambda record: record.write_text("[" * 100_000), lambda record: record.write_text("[]"), piped],
    ids=["missing", "nested", "list", "pipe"],
)
def test_without_a_record_nothing_is_taken(
    damage: Callable[[Path], object], bundle: Bundle, options: SessionOptions, caplog: pytest.LogCaptureFixture
) -> None:
    load(bundle, options)
    damage(directory_of(options, bundle) / RECORD)
    assert load(bundle, options) == list(GRAPHS)
    assert f"{RECORD} cannot be read" in caplog.text
    assert load(bundle, options) == []


def test_files_that_nobody_recorded_are_removed(bundle: Bundle, options: SessionOptions) -> None:
    load(bundle, options)
    directory = directory_of(options, bundle)
    (directory / "planted.engine").write_text("engine of nobody")
    record = json.loads((directory / RECORD).read_text())
    outside = directory.parent / "outside"
    outside.write_text("mine")
    (directory / RECORD).write_text(json.dumps(record | {"../outside": {"size": 1, "sha256": ""}}))
    assert load(bundle, options) == []
    assert "planted.engine" not in FakeSession.found
    assert not (directory / "planted.engine").exists()
    assert outside.read_text() == "mine"


def test_engines_that_are_built_later_are_recorded_at_the_end(
    bundle: Bundle, options: SessionOptions, caplog: pytest.LogCaptureFixture
) -> None:
    backend = OnnxRuntimeBackend(bundle, options)
    session: Any = backend._sessions[ENCODER]
    session.build_more()
    del backend, session
    assert load(bundle, options) == []
    assert caplog.records == []
    assert (directory_of(options, bundle) / f"{ENCODER}.engine").read_text() == "larger engine of encoder"


def test_what_tensorrt_rtx_writes_at_the_end_is_recorded(
    bundle: Bundle, options: SessionOptions, caplog: pytest.LogCaptureFixture
) -> None:
    rtx = SessionOptions(device="tensorrt_rtx", tensorrt=options.tensorrt)
    load(bundle, rtx)
    assert FakeSession.found == []
    load(bundle, rtx)
    assert set(FakeSession.found) == {f"{graph}.cache" for graph in GRAPHS}
    assert caplog.records == []


def test_what_a_killed_process_left_is_not_taken(
    bundle: Bundle, options: SessionOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(FakeSession, "get_inputs", lambda _: 1 / 0)  # fails after writing its engine
        with pytest.raises(ZeroDivisionError):
            load(bundle, options)
    assert (directory_of(options, bundle) / f"{ENCODER}.engine").exists()
    assert load(bundle, options) == list(GRAPHS)


@pytest.mark.parametrize("which", ["parent", "own"])
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_directory_that_others_may_write_is_refused(
    which: str, mode: int, bundle: Bundle, options: SessionOptions
) -> None:
    load(bundle, options)
    directory = directory_of(options, bundle)
    directory = directory if which == "own" else directory.parent
    directory.chmod(mode)
    with pytest.raises(EngineError, match=f"engine_cache cannot be used: {directory}: other users may write to it"):
        load(bundle, options)
    assert FakeSession.found == []


def test_a_directory_of_another_user_is_refused(
    bundle: Bundle, options: SessionOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(bundle, options)
    cache = directory_of(options, bundle).parent
    real = cache_directory.Path.stat

    def of_another(path: Path, **keywords: Any) -> Any:
        found = real(path, **keywords)
        return SimpleNamespace(st_uid=found.st_uid + 1, st_mode=found.st_mode) if path == cache else found

    monkeypatch.setattr(cache_directory.Path, "stat", of_another)
    with pytest.raises(EngineError, match="belongs to another user; choose a directory of your own"):
        load(bundle, options)


def test_a_directory_that_cannot_be_made_is_named(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    options = SessionOptions(device="tensorrt", tensorrt=TensorRtOptions(engine_cache=tmp_path / "file" / "cache"))
    with pytest.raises(EngineError, match="engine_cache cannot be used: .*file: File exists; choose another"):
        OnnxRuntimeBackend(bundle, options)
