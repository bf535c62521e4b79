"""Test readers while a bundle is replaced again and again: they see one bundle or the other, never a mix."""

import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from handmade_bundle import make_bundle
from speech_runtime import BundleError, SessionOptions
from speech_runtime.atomic.system_calls import exchange
from speech_runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from speech_runtime.bundle import safe_files
from speech_runtime.bundle.loading import Bundle, load_whole
from speech_runtime.bundle.manifest import GENERATION_CONFIG, PREPROCESSOR_CONFIG
from speech_runtime.bundle.safe_files import FileFacts

LOADS, MANY = 150, 3000


def two_bundles(directory: Path, *, external_data: bool = False) -> tuple[Path, Path]:
    """Two bundles, each of which has its own number in every file that the test reads."""
    made = []
    for number in (1, 2):
        bundle = make_bundle(directory / str(number), external_data=external_data, source=f"model/{number}")
        for name in (GENERATION_CONFIG, PREPROCESSOR_CONFIG):
            values = json.loads((bundle / name).read_text())
            (bundle / name).write_text(json.dumps({**values, "number": number}))
        manifest = json.loads((bundle / "bundle.json").read_text())
        for name in (GENERATION_CONFIG, PREPROCESSOR_CONFIG):
            manifest["files"][name] = vars(FileFacts.of(bundle / name))
        (bundle / "bundle.json").write_text(json.dumps(manifest))
        made.append(bundle)
    return made[0], made[1]


def numbers(bundle: Bundle) -> set[str]:
    """The number of each file, read as a load reads it: one after the other, by its path."""
    found = {bundle.manifest.source.rpartition("/")[2]}
    for name in (GENERATION_CONFIG, PREPROCESSOR_CONFIG):
        found.add(str(json.loads(bundle.path(name).read_text())["number"]))
    return found


def by_exchange(one: Path, other: Path) -> None:
    exchange(one, other)


def by_files(one: Path, other: Path) -> None:
    """As a copy over the bundle does it: file by file, in place."""
    for name in ("bundle.json", GENERATION_CONFIG, PREPROCESSOR_CONFIG):
        content = (other / name).read_bytes()
        (other / name).write_bytes((one / name).read_bytes())
        (one / name).write_bytes(content)


@contextmanager
def replaced_for_ever(replace: Callable[[Path, Path], None], one: Path, other: Path) -> Iterator[None]:
    done = threading.Event()

    def work() -> None:
        while not done.wait(0.001):
            replace(one, other)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("loads", [LOADS, pytest.param(MANY, marks=pytest.mark.full)])
@pytest.mark.parametrize("replace", [by_exchange, by_files])
@pytest.mark.parametrize("has_descriptors", [True, False])
def test_no_load_is_mixed(
    replace: Callable[[Path, Path], None],
    has_descriptors: bool,
    loads: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not has_descriptors:
        monkeypatch.setattr(safe_files, "_DESCRIPTORS", Path("/nowhere"))
    bundles = two_bundles(tmp_path)
    outcomes: Counter[str] = Counter()
    with replaced_for_ever(replace, *bundles):
        for _ in range(loads):
            try:
                found = load_whole(bundles[0], numbers)
            except BundleError as error:
                outcomes["refused, naming a descriptor" if "/proc/" in str(error) else "refused"] += 1
            else:
                outcomes["whole" if len(found) == 1 else "mixed"] += 1
    assert not outcomes.keys() - {"whole", "refused"}
    assert replace is by_files or not has_descriptors or outcomes == {"whole": loads}


@pytest.mark.parametrize("external_data", [False, True])
def test_graphs_are_of_the_bundle_that_was_opened(external_data: bool, tmp_path: Path) -> None:
    """Another bundle takes the place between the check and the load of the graphs and their weights."""
    bundles = two_bundles(tmp_path, external_data=external_data)
    for graph in bundles[1].glob("*.onnx*"):
        graph.write_bytes(b"no graph")

    def load(bundle: Bundle) -> OnnxRuntimeBackend:
        exchange(*bundles)
        return OnnxRuntimeBackend(bundle, SessionOptions(intra_op_threads=1))

    load_whole(bundles[0], load)


def test_a_decoy_in_the_current_directory_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make_bundle(tmp_path / "bundle", external_data=True)
    decoys = tmp_path / "decoys"
    decoys.mkdir()
    for data in bundle.glob("*.data"):
        (decoys / data.name).write_bytes(bytes(data.stat().st_size))
    monkeypatch.chdir(tmp_path)

    def load(opened: Bundle) -> None:
        os.chdir(decoys)
        OnnxRuntimeBackend(opened, SessionOptions(intra_op_threads=1))

    load_whole("bundle", load)
    os.chdir(decoys)
    (bundle / "encoder.onnx.data").unlink()
    with pytest.raises(BundleError, match=r"encoder\.onnx\.data is missing"):
        Bundle.open(bundle)
