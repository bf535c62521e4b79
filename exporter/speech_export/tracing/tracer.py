"""Trace each graph to ONNX by `torch.onnx.export`, with named dynamic dimensions, and write it to disk."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import nn
from transformers import SpeechEncoderDecoderModel

from speech_runtime.bundle.graph_io import (
    DECODER_INIT,
    DECODER_WITH_PAST,
    ENCODER,
    Cache,
    graph_inputs,
    graph_outputs,
)
from speech_runtime.bundle.model_facts import DecoderFacts, EncoderFacts
from speech_runtime.interrupts import interruption

from ..errors import ExportError, reason
from ..precision.options import Target
from . import tree_cache
from .facts import encoder_width
from .graphs import DecoderInit, DecoderWithPast, DecoderWithStaticPast, DecoderWithTreePast, Encoder
from .rewrites import onnx_attention
from .step_examples import SIZES, step_examples

OPSET = 20
OPSETS: dict[Target, int] = {"cpu": OPSET, "cuda": onnx_attention.OPSET, "tensorrt": OPSET}
"""ONNX opset of the graphs for each target: as old as can be, so that more parsers know it."""
_STEPS: dict[Cache, type[DecoderWithPast]] = {
    "growing": DecoderWithPast,
    "static": DecoderWithStaticPast,
    "tree": DecoderWithTreePast,
}
_EXTERNAL_DATA_FROM = 2**25
"""Size in bytes above which weights go to a file beside the graph, which is mapped into memory and not copied.

A protobuf would be read, parsed and copied, and holds 2 GiB at most."""

_BATCH, _FRAMES = SIZES["batch"], SIZES["frames"]
_AUDIO_FRAMES = 7 * _FRAMES  # several blocks of a positional convolution; a single one would be a size of 1


@dataclass(frozen=True)
class Traceable:
    """A graph of a model `family`, as a module with example inputs and the names of their dynamic dimensions.

    `cache` is the kind of cache of the decoder's step.
    """

    name: str
    family: str
    module: nn.Module
    examples: tuple[Any, ...]
    dynamic_shapes: dict[str, Any]
    cache: Cache = "growing"


def traceables(model: SpeechEncoderDecoderModel, encoder: EncoderFacts, decoder: DecoderFacts) -> Iterator[Traceable]:
    """Yield the three graphs of `model`, ready to trace."""
    length = min(encoder.min_length + _AUDIO_FRAMES * encoder.stride, encoder.max_length or sys.maxsize)
    shape = (_BATCH, length) if encoder.feature_size is None else (_BATCH, length, encoder.feature_size)
    dynamic = {0: "batch"} if length == encoder.min_length == encoder.max_length else {0: "batch", 1: "samples"}
    yield Traceable(
        ENCODER,
        model.encoder.config.model_type,
        Encoder(model).eval(),
        (torch.randn(shape), torch.ones(_BATCH, length, dtype=torch.int64)),
        {"inputs": dynamic, "attention_mask": dynamic},
    )
    yield Traceable(
        DECODER_INIT,
        model.decoder.config.model_type,
        DecoderInit(model, decoder.layers, merges_heads=decoder.cache == "tree").eval(),
        (torch.randn(_BATCH, _FRAMES, encoder_width(model)),),
        {"encoder_hidden_states": {0: "batch", 1: "frames"}},
    )
    yield step_of(model, decoder)


def step_of(model: SpeechEncoderDecoderModel, decoder: DecoderFacts) -> Traceable:
    """Return the decoder's step of `model`, ready to trace."""
    examples, dynamic_shapes = step_examples(decoder)
    return Traceable(
        DECODER_WITH_PAST,
        model.decoder.config.model_type,
        _STEPS[decoder.cache](model, decoder).eval(),
        examples,
        dynamic_shapes,
        decoder.cache,
    )


def trace(graph: Traceable, input_name: str, layers: int, opset: int = OPSET) -> ir.Model:
    """Trace `graph` to an ONNX opset; its inputs and outputs get the names of `speech_runtime.bundle.graph_io`.

    Raises:
        ExportError: The family does something that cannot be traced.
    """
    try:
        with _quiet():
            program = torch.onnx.export(
                graph.module,
                graph.examples,
                dynamo=True,
                dynamic_shapes=graph.dynamic_shapes,
                input_names=graph_inputs(graph.name, input_name, layers, graph.cache),
                output_names=graph_outputs(graph.name, layers),
                opset_version=opset,
                custom_translation_table=tree_cache.TRANSLATIONS,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        if (interrupt := interruption(error)) is not None:
            raise interrupt from error
        cause = reason(error.__cause__ or error)
        raise ExportError(
            f"{graph.family} cannot be exported yet, its {graph.name} cannot be traced: {cause}"
        ) from error
    assert program is not None  # noqa: S101 - only dynamo=False returns None
    return program.model


def save(model: ir.Model, path: Path) -> None:
    """Write a graph to `path`, and its weights to `NAME.onnx.data` beside it if they are large."""
    weights = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    if weights > _EXTERNAL_DATA_FROM:
        ir.save(model, path, external_data=f"{path.name}.data")
    else:  # the data file of the original graph is not beside this one
        _read_all(model)
        ir.save(model, path)


def _read_all(model: ir.Model) -> None:
    """Copy weights from a file to memory. onnx_ir's own function closes the file, whose arrays may still be in use."""
    for value in model.graph.initializers.values():
        weights = value.const_value
        if isinstance(weights, ir.ExternalTensor):
            value.const_value = ir.Tensor(weights.numpy().copy(), dtype=weights.dtype, name=weights.name)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch's messages about its own tracing, which do not help a user."""
    chatty = logging.getLogger("torch.onnx")
    level = chatty.level
    chatty.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        chatty.setLevel(level)
