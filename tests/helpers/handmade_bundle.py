"""A bundle written by hand in milliseconds: its graphs load and have the right inputs, but compute nothing useful."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from speech_runtime.backends.tensorrt.profiles import graph_profiles
from speech_runtime.bundle.formats import FORMAT_VERSION
from speech_runtime.bundle.graph_io import GRAPHS, graph_inputs, graph_outputs
from speech_runtime.bundle.loading import Bundle
from speech_runtime.bundle.manifest import ENGINES, EngineSet, Manifest, Verification
from speech_runtime.bundle.model_facts import DecoderFacts, EncoderFacts
from speech_runtime.bundle.profile_limits import ProfileLimits
from speech_runtime.bundle.safe_files import FileFacts

WIDTH = 32
ENCODER = EncoderFacts(
    input_name="input_values", feature_size=None, heads=2, min_length=400, max_length=None, stride=320
)
DECODER = DecoderFacts(layers=1, heads=2, head_dim=16, vocab_size=5000, max_positions=64, max_tokens=None, top_k=8)
VERIFICATION = Verification(
    audio="noise", clips=4, max_logprob_difference=1.7e-5, greedy_agreement=1.0, beam_agreement=0.995, beams=4
)


def make_bundle(directory: Path, *, external_data: bool = False, **facts: Any) -> Path:
    """Write a bundle into `directory`; weights go into files of their own on request, `facts` into the manifest."""
    directory.mkdir(parents=True)
    manifest: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "source": "someone/model",
        "producer": {"speech-export": "0.1.0", "torch": "2.13.0"},
        "precision": "fp32",
        "target": "cpu",
        "encoder": ENCODER,
        "decoder": DECODER,
        "verification": VERIFICATION,
        **facts,
    }
    for graph in GRAPHS:
        model = _model(graph, manifest["encoder"].input_name, manifest["decoder"].layers)
        options = {"save_as_external_data": True, "location": f"{graph}.onnx.data", "size_threshold": 0}
        onnx.save(model, directory / f"{graph}.onnx", **(options if external_data else {}))
    settings: dict[str, dict[str, Any]] = {
        "generation_config.json": {"decoder_start_token_id": 1, "eos_token_id": 2, "num_beams": 5, "max_length": 40},
        "preprocessor_config.json": {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 16000},
    }
    for name, values in settings.items():
        (directory / name).write_text(json.dumps(values))
    Tokenizer(WordLevel({"[UNK]": 0, "one": 1, "two": 2}, "[UNK]")).save(str(directory / "tokenizer.json"))
    files = {path.name: FileFacts.of(path) for path in sorted(directory.iterdir())}
    Manifest(**manifest, files=files).write(directory)
    return directory


def add_engine_set(path: Path, **facts: Any) -> EngineSet:
    """Enter engines that say nothing into the bundle in `path`, as if they had been built for all its graphs."""
    bundle, limits = Bundle.open(path), facts.get("limits", ProfileLimits())
    name = facts.setdefault("directory", "tensorrt_rtx-0")
    engines = path / ENGINES / name
    engines.mkdir(parents=True)
    for graph in GRAPHS:
        (engines / f"{graph}.engine").write_text(f"{name} {graph}")
    profiles = {graph: tuple(map(dict, ranges)) for graph, ranges in graph_profiles(bundle, limits).items()}
    built: dict[str, Any] = {
        "flavor": "tensorrt_rtx",
        "version": "1.7.1",
        "compute_capabilities": (),
        "weights": "included",
        "tf32": False,
        "limits": limits,
        "profiles": profiles,
        "graphs": bundle.manifest.graph_hashes,
        "files": {file.name: FileFacts.of(file) for file in sorted(engines.iterdir())},
        **facts,
    }
    manifest = replace(bundle.manifest, engines=(*bundle.manifest.engines, EngineSet(**built)))
    manifest.write(path)
    return manifest.engines[-1]


def _model(graph: str, input_name: str, layers: int) -> onnx.ModelProto:
    """All outputs are relu(first input × weight + bias), which ONNX Runtime fuses when it optimises."""
    weight = np.linspace(-1, 1, WIDTH * WIDTH, dtype=np.float32).reshape(WIDTH, WIDTH)
    inputs, outputs = graph_inputs(graph, input_name, layers), graph_outputs(graph, layers)
    nodes = [
        helper.make_node("Cast", [inputs[0]], ["x"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "weight"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["y"]),
        *(helper.make_node("Identity", ["y"], [name]) for name in outputs),
    ]
    proto = helper.make_graph(
        nodes,
        graph,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", WIDTH]) for name in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", WIDTH]) for name in outputs],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(weight[0], "bias")],
    )
    return helper.make_model(proto, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
