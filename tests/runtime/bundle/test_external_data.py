"""Test external weights: a graph reads only from files of its bundle, each weight from its own bytes."""

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile

from composites import composite
from conftest import ONE_THREAD
from handmade_bundle import make_bundle
from parity.test_generate import padded_batch
from speech_export import export
from speech_export.limits import Limits
from speech_export.precision.options import PrecisionOptions
from speech_export.tracing import tracer as trace
from speech_runtime import Bundle, BundleError, OnnxSpeechSeq2Seq
from speech_runtime.bundle.graph_io import GRAPHS
from speech_runtime.bundle.manifest import MANIFEST
from speech_runtime.bundle.safe_files import FileFacts


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle", external_data=True)


def enter(path: Path) -> None:
    """Have the manifest say what the file is now."""
    manifest = json.loads((path.parent / MANIFEST).read_text())
    manifest["files"][path.name] = vars(FileFacts.of(path))
    (path.parent / MANIFEST).write_text(json.dumps(manifest))


def describe(bundle: Path, change: Callable[[onnx.TensorProto], object]) -> None:
    """Change how the encoder's first weight is described, and the manifest with it."""
    path = bundle / "encoder.onnx"
    model = onnx.load(path, load_external_data=False)
    change(model.graph.initializer[0])
    path.write_bytes(model.SerializeToString())
    enter(path)


def put(**values: str) -> Callable[[onnx.TensorProto], None]:
    def change(tensor: onnx.TensorProto) -> None:
        for key, value in values.items():
            entry = next((entry for entry in tensor.external_data if entry.key == key), None)
            (entry or tensor.external_data.add(key=key)).value = value

    return change


def test_weights_beside_the_graph_are_taken(bundle: Path) -> None:
    assert Bundle.open(bundle).has("encoder.onnx.data")


ELSEWHERE = [
    "",
    ".",
    "..",
    "../evil",
    "/etc/passwd",
    "a/../../b",
    "encoder.onnx.data_evil",
    "stranger",
    "x\0y",
    "folder",
]
ELSEWHERE += ["pipe", "link", "./encoder.onnx.data", "*/_ORT_MEM_ADDR_/*"]


@pytest.mark.parametrize("location", ELSEWHERE)
@pytest.mark.parametrize("check_hashes", [True, False])
def test_other_files_are_refused(location: str, check_hashes: bool, bundle: Path) -> None:
    (bundle / "stranger").write_bytes(bytes(10_000))
    (bundle / "folder").mkdir()
    os.mkfifo(bundle / "pipe")
    (bundle / "link").symlink_to(bundle / "encoder.onnx.data")
    describe(bundle, put(location=location))
    with pytest.raises(BundleError, match=r"encoder\.onnx reads weights from .*, which is not a file of the bundle"):
        Bundle.open(bundle, check_hashes=check_hashes)


@pytest.mark.parametrize(
    "place",
    [{"offset": "-1"}, {"length": "-1"}, {"offset": str(2**62)}, {"length": "1000000000000000000"}, {"length": "1e3"},
     {"offset": "9" * 5000}, {"length": "٣"}, {"offset": "4096", "length": "4096"}],
)  # fmt: skip
def test_bytes_that_are_not_there_are_refused(place: dict[str, str], bundle: Path) -> None:
    describe(bundle, put(**place))
    with pytest.raises(BundleError, match="reads weights beyond the end of encoder.onnx.data"):
        Bundle.open(bundle)


@pytest.mark.parametrize("key", ["__class__", "basepath", "Location", ""])
def test_unknown_keys_are_refused(key: str, bundle: Path) -> None:
    describe(bundle, put(**{key: "x"}))
    with pytest.raises(BundleError, match="describes a weight with unknown fields"):
        Bundle.open(bundle)


def test_a_key_given_twice_is_refused(bundle: Path) -> None:
    describe(bundle, lambda tensor: tensor.external_data.add(key="location", value="encoder.onnx.data"))
    with pytest.raises(BundleError, match="describes a weight with unknown fields"):
        Bundle.open(bundle)


def test_weights_that_overlap_are_refused(bundle: Path) -> None:
    path = bundle / "encoder.onnx"
    model = onnx.load(path, load_external_data=False)
    put(offset="0", length="4000")(model.graph.initializer[0])
    put(offset="64", length="128")(model.graph.initializer[1])
    path.write_bytes(model.SerializeToString())
    enter(path)
    with pytest.raises(BundleError, match="reads two weights from the same bytes of encoder.onnx.data"):
        Bundle.open(bundle)


def test_weights_within_nodes_are_found(bundle: Path) -> None:
    """A constant in a branch of a node names its file as an initializer does."""
    path = bundle / "encoder.onnx"
    model = onnx.load(path, load_external_data=False)
    tensor = onnx.TensorProto(data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL, name="w")
    tensor.external_data.add(key="location", value="../evil")
    constant = onnx.helper.make_node("Constant", [], ["c"], value=tensor)
    branch = onnx.helper.make_graph([constant], "branch", [], [])
    model.graph.node.append(onnx.helper.make_node("If", ["x"], ["i"], then_branch=branch, else_branch=branch))
    path.write_bytes(model.SerializeToString())
    enter(path)
    with pytest.raises(BundleError, match="'../evil', which is not a file of the bundle"):
        Bundle.open(bundle)


@pytest.mark.parametrize(
    "other",
    ["decoder_init.onnx.data", "decoder_with_past.onnx.data", "tokenizer.json", "encoder.onnx", "decoder_init.onnx"],
)
@pytest.mark.parametrize("place", [{}, {"offset": "0", "length": "128"}, {"offset": "64", "length": "64"}])
def test_two_graphs_do_not_share_a_file(place: dict[str, str], other: str, bundle: Path) -> None:
    """Whatever is known of a graph, such as the name of its cached twin, follows from the files of its name."""
    describe(bundle, put(location=other, **place))
    for check_hashes in (True, False):
        with pytest.raises(BundleError, match=f"encoder.onnx reads weights from '{other}', which is not one of"):
            Bundle.open(bundle, check_hashes=check_hashes)


CONVERSIONS = {
    "fp32": PrecisionOptions(),
    "int8": PrecisionOptions(precision="int8"),
    "int4": PrecisionOptions(precision="int4"),
    "fp16": PrecisionOptions(precision="fp16", target="cuda"),
    "encoder int8": PrecisionOptions(encoder_precision="int8"),
    "int8 for TensorRT": PrecisionOptions(precision="int8", target="tensorrt"),
}


def locations(graph: Path) -> set[str]:
    """Files that a graph names, as ONNX reads it."""
    tensors = onnx.load(graph, load_external_data=False).graph.initializer
    return {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}


@pytest.mark.usefixtures("traced_once")
@pytest.mark.parametrize(
    "conversion",
    [
        "int8",
        "fp16",
        *(pytest.param(name, marks=pytest.mark.full) for name in CONVERSIONS if name not in ("int8", "fp16")),
    ],
)
def test_each_graph_of_a_conversion_has_a_file_of_its_own_and_a_copy_says_the_same(
    conversion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "_EXTERNAL_DATA_FROM", 0)
    made, audio = tmp_path / "bundle", tmp_path / "audio"
    audio.mkdir()
    soundfile.write(audio / "short.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 1603), 16000)
    options = {"precision": CONVERSIONS[conversion], "limits": Limits(math.inf, 0.0)}
    bundle = export(composite("bert"), made, calibration_audio=audio, **options)
    for graph in GRAPHS:
        assert locations(made / f"{graph}.onnx") == {f"{graph}.onnx.data"}
    assert {path.name for path in made.iterdir()} == {MANIFEST, *bundle.manifest.files}
    weights = [made / f"{graph}.onnx.data" for graph in GRAPHS]
    assert len({os.path.realpath(path) for path in weights}) == len(GRAPHS)

    def answer(directory: Path) -> tuple[list[list[int]], bytes]:
        model = OnnxSpeechSeq2Seq.from_pretrained(directory, options=ONE_THREAD)
        inputs, mask = padded_batch([1603, 977])
        logits = model.forward(inputs, mask, decoder_input_ids=[[1, 5, 7], [1, 6, 8]]).logits
        return model.generate(inputs, mask, num_beams=3).tolist(), logits.tobytes()

    expected = answer(made)
    shutil.copytree(made, tmp_path / "copy")
    shutil.rmtree(made)
    assert answer(tmp_path / "copy") == expected
