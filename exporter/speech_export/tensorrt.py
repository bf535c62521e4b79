"""TensorRT engines: a graph parsed and built by TensorRT-RTX, which needs no GPU for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from .errors import ExportError


@dataclass(frozen=True)
class Range:
    """Smallest, usual and largest size of a dynamic dimension."""

    smallest: int
    usual: int
    largest: int


def build_engine(graph: Path, ranges: Mapping[str, Range]) -> bytes:
    """Parse and build `graph` for every GPU that TensorRT-RTX knows.

    Args:
        graph: an ONNX file of a bundle.
        ranges: of its dynamic dimensions, by name: batch, samples, frames, beams, past_beams, tokens and past.

    Returns:
        The serialised engine.

    Raises:
        ExportError: TensorRT-RTX is missing, refuses the graph, or a dimension has no range.
    """
    trt = _tensorrt()
    logger = _Log(trt)
    builder = trt.Builder(logger.sink)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger.sink)
    if not parser.parse_from_file(str(graph)):
        errors = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
        raise ExportError(f"TensorRT cannot parse {graph.name}: {errors or logger.last_error}")
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    for name, shapes in _shapes(graph, ranges).items():
        profile.set_shape(name, *shapes)
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ExportError(f"TensorRT cannot build {graph.name}: {logger.last_error}")
    return bytes(engine)


def _shapes(graph: Path, ranges: Mapping[str, Range]) -> dict[str, list[tuple[int, ...]]]:
    """Smallest, usual and largest shape of every input."""
    shapes = {}
    for value in ir.load(graph).graph.inputs:
        dimensions = []
        for size in value.shape or ():
            known = isinstance(size, int)
            if not known and size.value not in ranges:
                raise ExportError(f"the dimension {size.value} of {value.name} in {graph.name} has no range")
            dimensions.append(Range(size, size, size) if known else ranges[size.value])
        shapes[str(value.name)] = [
            tuple(getattr(dimension, end) for dimension in dimensions) for end in ("smallest", "usual", "largest")
        ]
    return shapes


class _Log:
    """TensorRT's log, of which the last error is kept: its exceptions say nothing."""

    def __init__(self, trt: Any) -> None:
        self.last_error = "it does not say why"
        log = self

        class Sink(trt.ILogger):  # type: ignore[misc]  # the library has no types
            def log(self, severity: Any, message: str) -> None:
                if severity <= trt.ILogger.ERROR:
                    log.last_error = message

        self.sink = Sink()


def _tensorrt() -> Any:
    try:
        import tensorrt_rtx
    except ImportError as error:
        raise ExportError(
            "TensorRT-RTX is needed to build engines: pip install 'speech-export[tensorrt-rtx]'"
        ) from error
    return tensorrt_rtx
