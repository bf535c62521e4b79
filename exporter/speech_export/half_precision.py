"""A bundle in half precision: measured on real audio, and float32 where half does not hold what was seen."""

import logging
import tempfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from speech_runtime.bundle import Bundle, FileFacts, Manifest
from speech_runtime.contract import ENCODER, ENCODER_HIDDEN_STATES, GRAPHS, LOGITS, TOP_LOGPROBS, cache_names

from .calibration import ModelInput, record
from .errors import ExportError
from .out_of_range import OutOfRange, nodes_out_of_range
from .passes.casts import HALF
from .passes.float32_nodes import float32_nodes, floats
from .passes.half import to_half
from .ranges import ValueRange, value_ranges
from .trace import save

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HalvedGraph:
    """What became of a graph.

    Attributes:
        out_of_range: nodes in float32 for the numbers that were seen in them.
        half_nodes: how many nodes make float16.
        float32_nodes: how many make float32.
    """

    out_of_range: tuple[OutOfRange, ...]
    half_nodes: int
    float32_nodes: int


@dataclass(frozen=True)
class HalfReport:
    """What became of a bundle.

    Attributes:
        graphs: by name.
        float32_states: encoder output and caches that are float32 for their range.
    """

    graphs: Mapping[str, HalvedGraph]
    float32_states: tuple[str, ...]


def halve(directory: Path, calibration: Iterable[ModelInput], keep_float32: Collection[str] = ()) -> HalfReport:
    """Replace the float32 graphs of the bundle in `directory` by graphs of half precision.

    Audio goes in as float32; logits and log-probabilities come out as float32. The states that go from graph to graph,
    encoder output and caches, are float16, unless that does not hold them.

    Args:
        directory: a bundle of standard ONNX graphs. Its manifest is made to say fp16, and not to be verified.
        calibration: model input like what the model is for.
        keep_float32: names of more nodes that stay float32.

    Raises:
        ExportError: there is nothing to measure on, or a name that no graph has.
    """
    bundle = Bundle.open(directory, check_hashes=False)
    feeds = record(bundle, calibration)
    if not feeds[ENCODER]:
        raise ExportError("half precision is measured on audio, and there is none; give one clip at least")
    ranges = {graph: value_ranges(bundle.path(f"{graph}.onnx"), feeds.pop(graph)) for graph in GRAPHS}
    states = _states_out_of_range(bundle.manifest, ranges)
    interface = {bundle.manifest.encoder.input_name, LOGITS, TOP_LOGPROBS, *states}
    unknown, halved = set(keep_float32), {}
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        for name in GRAPHS:
            model = ir.load(bundle.path(f"{name}.onnx"))
            unknown -= {node.name for node in model.graph}
            found = nodes_out_of_range(model.graph, ranges[name], float32_nodes(model.graph, keep_float32, interface))
            for node in found:
                logger.info("%s stays float32 in %s", node, name)
            to_half(model, {*keep_float32, *(node.node for node in found)}, interface)
            ir.external_data.load_to_model(model)  # weights that stay float32 are still where they came from
            save(model, Path(scratch, f"{name}.onnx"))
            halved[name] = _halved(model.graph, found)
        if unknown:
            raise ExportError(f"{', '.join(sorted(unknown))}: no graph has such a node, which is to stay float32")
        _replace_graphs(directory, Path(scratch))
    _write_manifest(bundle.manifest, directory)
    return HalfReport(halved, tuple(sorted(states)))


def _states_out_of_range(manifest: Manifest, ranges: Mapping[str, Mapping[str, ValueRange]]) -> set[str]:
    """Encoder output and caches that half does not hold, in any graph; a cache is the same before and after a step."""
    layers = manifest.decoder.layers
    together = [{ENCODER_HIDDEN_STATES}, *({name} for name in cache_names("cross", layers))]
    together += map(set, zip(cache_names("past", layers), cache_names("present", layers), strict=True))
    seen = [(name, found) for graph in ranges.values() for name, found in graph.items()]
    outside = {name for name, found in seen if found.overflows or found.underflows}
    return set().union(*(names for names in together if names & outside))


def _halved(graph: ir.Graph, found: list[OutOfRange]) -> HalvedGraph:
    made = [node for node in graph if node.op_type != "Cast"]
    half = sum(any(value.dtype == HALF for value in node.outputs) for node in made)
    return HalvedGraph(tuple(found), half, sum(bool(floats(node.outputs)) for node in made))


def _replace_graphs(directory: Path, made: Path) -> None:
    for path in [path for graph in GRAPHS for path in directory.glob(f"{graph}.onnx*")]:
        path.unlink()
    for path in made.iterdir():
        path.rename(directory / path.name)


def _write_manifest(manifest: Manifest, directory: Path) -> None:
    graphs = [path for graph in GRAPHS for path in directory.glob(f"{graph}.onnx*")]
    others = {name: facts for name, facts in manifest.files.items() if name.partition(".onnx")[0] not in GRAPHS}
    files = others | {path.name: FileFacts.of(path) for path in graphs}
    replace(manifest, precision="fp16", verification=None, files=dict(sorted(files.items()))).write(directory)
