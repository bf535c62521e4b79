"""Trace each graph once a run: exports of the same weights with the same options read what was traced before.

Tracing takes most of an export of a tiny model. All else is done anew: loading, passes, conversion and verification.
"""

import hashlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
from transformers import PretrainedConfig, SpeechEncoderDecoderModel

from speech_export import export_bundle
from speech_export.precision.options import PrecisionOptions
from speech_export.tracing.tracer import Traceable, trace
from speech_runtime.bundle.model_facts import DecoderFacts, EncoderFacts

_NOT_IN_GRAPHS = {"_name_or_path", "architectures", "dtype", "transformers_version"}
"""Settings of a configuration that change when a model is saved and loaded, and that no graph depends on."""


@contextmanager
def graphs_traced_once(folder: Path) -> Iterator[None]:
    """Within this context, exports read their traced graphs from `folder`, or trace them and leave them there."""
    trace_and_optimize = export_bundle._trace_and_optimize
    of_this_export = ""

    def remember(
        model: SpeechEncoderDecoderModel,
        encoder: EncoderFacts,
        decoder: DecoderFacts,
        options: PrecisionOptions,
        *rest: Any,
    ) -> DecoderFacts:
        nonlocal of_this_export
        of_this_export = _digest(model, encoder, decoder, options)
        return trace_and_optimize(model, encoder, decoder, options, *rest)

    def trace_once(graph: Traceable, *arguments: Any) -> ir.Model:
        path = folder / f"traced-{of_this_export}-{graph.name}.onnx"
        if path.exists():
            return ir.load(path)
        traced = trace(graph, *arguments)
        partial = path.with_suffix(f".{uuid.uuid4().hex}")  # another worker may trace the same
        ir.save(traced, partial, format="protobuf")
        partial.replace(path)
        return traced

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_bundle, "_trace_and_optimize", remember)
        patch.setattr(export_bundle, "trace", trace_once)
        yield


def _digest(
    model: SpeechEncoderDecoderModel, encoder: EncoderFacts, decoder: DecoderFacts, options: PrecisionOptions
) -> str:
    """Return a digest of all that the traced graphs depend on."""
    halves = [_settings(half.config) for half in (model.encoder, model.decoder)]
    found = hashlib.sha256(repr([model, halves, encoder, decoder, options.target, options.encoder_in_bytes]).encode())
    for tensors in (model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)):
        for name, tensor in tensors:
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            found.update(tensor.detach().contiguous().numpy().tobytes())
    return found.hexdigest()


def _settings(config: PretrainedConfig) -> list[tuple[str, Any]]:
    known = config.to_dict() | {"attention": config._attn_implementation}
    return sorted((name, value) for name, value in known.items() if name not in _NOT_IN_GRAPHS)
