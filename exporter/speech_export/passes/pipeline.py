"""The passes of each target and precision, in the order in which they run.

A traced graph is optimised once, in float32, for the CPU or for GPUs. A bundle below float32 is made from those float32
graphs, as often as the accuracy gate needs to find the parts that must stay float32.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial

import onnx_ir as ir

from speech_runtime.bundle.graph_io import DECODER_WITH_PAST, PAST_LENGTH
from speech_runtime.bundle.model_facts import DecoderFacts

from ..precision.options import Precision, PrecisionOptions, Target
from .cpu.cross_attention import fuse_cross_attention
from .cpu.fast_mask_sum import count_mask_fast
from .cpu.in_place_cache import keep_cache_in_place
from .cpu.scaled_queries import scale_queries
from .cuda.channel_norm import spell_out_channel_norms
from .cuda.frame_counts import count_frames_fast
from .cuda.key_lengths import count_keys_fast
from .cuda.needless_biases import drop_needless_biases
from .cuda.packed_projections import pack_projections
from .cuda.skip_layer_norm import fuse_skip_layer_norms
from .half.convert import to_half
from .half.kernels import HalfKernels
from .plain_shapes import plain_shapes
from .quantize.dynamic_int8 import quantize_groups, quantize_projections
from .quantize.embedding_table import quantize_embeddings, quantize_shared_tables
from .quantize.explicit_int8 import quantize_explicitly
from .quantize.int4 import quantize_projections_to_int4
from .quantize.packed_queries import pack_queries
from .quantize.quantizable import Quantizable
from .quantize.quantized_windows import quantize_before_windows
from .shared_weights import share_transposed_weights
from .tracer_metadata import name_after_modules, strip_metadata
from .unmasked_attention import drop_needless_masks

Pass = Callable[[ir.Model], object]
"""A function that changes a model in place."""


def run_passes(model: ir.Model, passes: list[Pass]) -> None:
    """Run `passes` on `model` in order."""
    for each in passes:
        each(model)


def optimize(model: ir.Model, graph: str, target: Target, decoder: DecoderFacts) -> DecoderFacts:
    """Optimise a traced graph for `target`, in place.

    Args:
        model: The traced graph.
        graph: Name of the graph in the bundle.
        target: Target of the bundle.
        decoder: Facts of the decoder as traced.

    Returns:
        Facts of the decoder, with the cache "in_place" if the step graph now writes into its cache, and "ragged" if its
        utterances may have pasts of different lengths.
    """
    passes = {"cpu": passes_for_cpu, "cuda": passes_for_cuda, "tensorrt": passes_for_tensorrt}[target]
    run_passes(model, passes(graph, decoder))
    if graph != DECODER_WITH_PAST or decoder.cache != "growing":
        return decoder
    # `keep_cache_in_place` gives the graph this input, in place of `beam_idx`.
    past_length = next((value for value in model.graph.inputs if value.name == PAST_LENGTH), None)
    if past_length is None:
        return decoder
    return replace(decoder, cache="in_place", ragged=past_length.shape != [1])


def passes_for_tensorrt(graph: str, decoder: DecoderFacts) -> list[Pass]:  # noqa: ARG001 - the same for all
    """Return the float32 passes for TensorRT; the graph stays standard ONNX."""
    return [
        share_transposed_weights,  # First: makes the transposed weight a constant, which name_after_modules looks for.
        name_after_modules,
        strip_metadata,  # After name_after_modules, which reads the metadata.
    ]


def passes_for_cuda(graph: str, decoder: DecoderFacts) -> list[Pass]:  # noqa: ARG001 - the same for all
    """Return the float32 passes for ONNX Runtime's CUDA kernels."""
    return [
        share_transposed_weights,  # First: makes the transposed weight a constant, which name_after_modules looks for.
        name_after_modules,  # Before the others: nodes that they make are named after those they replace.
        spell_out_channel_norms,
        count_frames_fast,
        count_keys_fast,
        plain_shapes,  # Before the next: with it the projections are next to the attention.
        drop_needless_biases,
        pack_projections,  # After drop_needless_biases: the biases that are left are added to a part of the product.
        fuse_skip_layer_norms,  # After drop_needless_biases, which changes biases that this moves into the norm.
        strip_metadata,  # After name_after_modules, which reads the metadata.
    ]


def passes_for_cpu(graph: str, decoder: DecoderFacts) -> list[Pass]:
    """Return the float32 passes for ONNX Runtime's CPU kernels."""
    in_place = partial(
        keep_cache_in_place,
        layers=decoder.layers,
        heads=decoder.heads,
        head_dim=decoder.head_dim,
        max_positions=decoder.max_positions,
    )
    only_step: list[Pass] = [
        partial(fuse_cross_attention, layers=decoder.layers),
        *([in_place] if decoder.max_tokens is None else []),
        scale_queries,  # After both: it looks for the attention operators that they make.
    ]
    return [
        share_transposed_weights,  # First: makes the transposed weight a constant, which name_after_modules looks for.
        name_after_modules,  # Before the others: nodes that they make are named after those they replace.
        drop_needless_masks,
        count_mask_fast,
        *(only_step if graph == DECODER_WITH_PAST else []),
        plain_shapes,  # After the attention passes: they look for the Reshapes as traced.
        strip_metadata,  # After name_after_modules, which reads the metadata.
    ]


def passes_to_int8(found: Quantizable, precision: Precision, options: PrecisionOptions, words: int) -> list[Pass]:
    """Return the passes to int8 or int4 on the CPU: weights in 8 or 4 bits, activations quantised at run time.

    Args:
        found: Parts of the graph to quantise.
        precision: "int8" or "int4". With int4, output projections are in int8 all the same.
        options: Block size and accuracy level of int4.
        words: Number of words, which is the number of columns of an output projection.
    """
    in_int4 = [each for each in found.projections if precision == "int4" and each.matrix().shape[1] != words]
    in_int8 = [each for each in found.projections if each not in in_int4]
    to_int4 = partial(
        quantize_projections_to_int4,
        chosen=in_int4,
        block_size=options.block_size,
        accuracy_level=options.accuracy_level,
    )
    return [
        partial(quantize_shared_tables, heads=found.shared_tables),
        partial(quantize_embeddings, gathers=found.embeddings),
        to_int4,
        partial(quantize_projections, chosen=in_int8),
        partial(quantize_groups, chosen=found.groups),
        quantize_before_windows,  # After the int8 products are made: it moves their quantisation.
        pack_queries,  # After the int8 products are made: it joins three of them.
    ]


def passes_to_explicit_int8(found: Quantizable, largest: Mapping[str, float]) -> list[Pass]:
    """Return the passes to int8 for TensorRT: QuantizeLinear and DequantizeLinear, with scales measured on audio.

    Args:
        found: Parts of the graph to quantise.
        largest: Largest magnitude of each tensor, by name.
    """
    return [partial(quantize_explicitly, found=found, largest=largest)]


def passes_to_fp16(
    keep_float32: Collection[str], float32_interface: Collection[str], kernels: HalfKernels
) -> list[Pass]:
    """Return the passes to fp16; see `to_half` for the arguments."""
    return [partial(to_half, keep_float32=keep_float32, float32_interface=float32_interface, kernels=kernels)]
