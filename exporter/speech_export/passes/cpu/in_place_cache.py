"""A self-attention cache that each step appends to in place, without copying it.

As traced, a step gathers the cache by `beam_idx` and appends to a copy. This pass makes each layer one
`com.microsoft::GroupQueryAttention`, which appends the new keys and values to a cache with free room, in place if
`present` is bound to the memory of `past`. Reordering beams is left to the runtime: beams share most of their past,
which need not be moved (`speech_runtime.generation.decoding.caches.in_place`).
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from speech_runtime.bundle.graph_io import BEAM_IDX, INPUT_IDS, PAST_LENGTH, cache_names

from ..patterns.attention import Attention, attention_over, lets_see, mask_computer, only_user, producer, zeros
from ..patterns.projections import initializer
from .row_lengths import let_lengths_differ

_SEEN = (1, 7, 100, 1000)
"""Lengths of the past at which a mask is compared with a causal mask."""

_BEFORE_SINK = [None] * 4
"""Unused inputs of GroupQueryAttention: rotary tables, positions and a bias."""

_SINK_FROM = 64
"""Smallest head_dim for which the kernel that computes all scores at once is faster after a few tokens."""


@dataclass(frozen=True)
class _SelfAttention:
    """The self-attention of one layer, and the key and value [rows, heads, tokens, head_dim] of the new tokens."""

    attention: Attention
    key: ir.Value
    value: ir.Value


def keep_cache_in_place(model: ir.Model, layers: int, heads: int, head_dim: int, max_positions: int | None) -> bool:
    """Let the step graph append to its cache instead of copying it.

    Inputs `past` and outputs `present` become [batch × beams, heads, room, head_dim]. The input `past_length` replaces
    `beam_idx`: the number of tokens in the cache of each utterance, int64 [batch], or of all of them, int64 [1], where
    the graph needs that (see `let_lengths_differ`).

    Args:
        model: `decoder_with_past` as traced.
        layers: Number of layers with a cache.
        heads: Number of heads of the caches.
        head_dim: Numbers of each head.
        max_positions: Largest number of tokens of a sequence; None for no limit.

    Returns:
        True if the graph was changed; false if any of its attention is not plain and causal.
    """
    graph = model.graph
    inputs = {value.name: value for value in graph.inputs}
    past = [inputs[name] for name in cache_names("past", layers)]
    found = [_self_attention(graph, layer) for layer in range(layers)]
    attentions = [layer for layer in found if layer is not None]
    plain = len(attentions) == layers and head_dim % 8 == 0 and all(map(_only_gathered_or_measured, past))
    if not plain:
        return False
    masks = {layer.attention.mask for layer in attentions}
    if not all(_is_causal(model, mask, max_positions) for mask in masks):
        return False
    past_length = ir.Value(name=PAST_LENGTH, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([1]))
    graph.inputs[graph.inputs.index(inputs[BEAM_IDX])] = past_length
    _measure_by(past_length, past, inputs[BEAM_IDX], inputs[INPUT_IDS])
    room = ir.Shape(["rows", heads, "room", head_dim])
    for value in past:
        value.shape = room
    lengths = _lengths(graph, inputs[INPUT_IDS], past_length)
    for number, layer in enumerate(attentions):
        _replace(graph, number, layer, past[2 * number : 2 * number + 2], lengths)
    RemoveUnusedNodesPass()(model)
    let_lengths_differ(model, past_length, lengths.of_rows, inputs[INPUT_IDS])
    return True


def _self_attention(graph: ir.Graph, layer: int) -> _SelfAttention | None:
    """Return the self-attention of a layer, if it is plain attention."""
    present = {value.name: value for value in graph.outputs}
    key, value = (present[name] for name in (f"present.{layer}.key", f"present.{layer}.value"))
    new_key, new_value = _appended(key), _appended(value)
    attention = attention_over(only_user(key, "Reshape"), only_user(value, "Reshape"))
    if new_key is None or new_value is None or attention is None:
        return None
    return _SelfAttention(attention, new_key, new_value)


def _appended(present: ir.Value) -> ir.Value | None:
    """Return the value that is appended to a past, [rows, heads, tokens, head_dim]."""
    joined = producer(present, "Concat")
    if joined is None or len(joined.inputs) != 2 or producer(joined.inputs[0], "GatherND") is None:
        return None
    split = producer(joined.inputs[1], "Reshape")
    return None if split is None else split.inputs[0]


def _only_gathered_or_measured(past: ir.Value) -> bool:
    """Return true if a past is only read by GatherND, and by Shape for its length."""
    return all(
        (node.op_type == "GatherND" and index == 0) or (node.op_type == "Shape" and _dimensions(node) == (3, 4))
        for node, index in past.uses()
    )


def _dimensions(shape: ir.Node) -> tuple[int, int]:
    return shape.attributes.get_int("start", 0), shape.attributes.get_int("end", -1)


def _is_causal(model: ir.Model, mask: ir.Value | None, max_positions: int | None) -> bool:
    """Return true if a mask, at some lengths, lets each token see itself and all earlier ones, and nothing else."""
    compute = None if mask is None else mask_computer(model, mask, computed_from=set())
    if compute is None:
        return False
    longest = max_positions or _SEEN[-1]
    for past, tokens in [(0, min(4, longest)), *((min(past, longest - 1), 1) for past in _SEEN)]:
        sizes = {"batch": 1, "beams": 2, "past_beams": 2, "frames": 3, "past": past, "tokens": tokens}
        seen = np.arange(past + tokens) <= np.arange(past, past + tokens)[:, None]
        if not lets_see(compute(partial(zeros, sizes=sizes)), seen):
            return False
    return True


def _measure_by(past_length: ir.Value, past: list[ir.Value], beam_idx: ir.Value, input_ids: ir.Value) -> None:
    """Replace the length of a past by `past_length`, and read the number of beams from `input_ids`."""
    for value in past:
        for node, _ in tuple(value.uses()):
            if node.op_type == "Shape":
                ir.convenience.replace_all_uses_with(node.outputs[0], past_length)
    for node, index in tuple(beam_idx.uses()):
        if node.op_type == "Shape":
            node.replace_input_with(index, input_ids)


@dataclass(frozen=True)
class _Lengths:
    """Lengths of the past and with the new tokens.

    Attributes:
        of_rows: Length of the past of each row, int64 [batch × beams, 1].
        last: Last position of each row, int32 [batch × beams].
        longest: Largest number of positions of a row, int32 [1].
    """

    of_rows: ir.Value
    last: ir.Value
    longest: ir.Value


def _lengths(graph: ir.Graph, input_ids: ir.Value, past_length: ir.Value) -> _Lengths:
    """Compute what every layer takes from `past_length`, int64 [batch] or [1]."""
    nodes: list[ir.Node] = []

    def operation(op_type: str, name: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        nodes.append(ir.node(op_type, inputs, attributes, name=f"lengths/{name}"))
        nodes[-1].outputs[0].name = f"lengths.{name}"
        return nodes[-1].outputs[0]

    def constant(name: str, *values: int, dtype: type[np.integer[Any]] = np.int64) -> ir.Value:
        return initializer(graph, f"lengths.{name}", np.array(values, dtype=dtype))

    column = constant("column", -1, 1)
    by_utterance = operation("Reshape", "by_utterance", past_length, column)
    by_beam = operation("Expand", "by_beam", by_utterance, operation("Shape", "beams", input_ids, start=0, end=2))
    of_rows = operation("Reshape", "of_rows", by_beam, column)
    of_rows.type = past_length.type
    tokens = operation("Shape", "tokens", input_ids, start=2, end=3)
    positions = operation("Cast", "positions", operation("Add", "sum", of_rows, tokens), to=ir.DataType.INT32.value)
    last_of_rows = operation("Sub", "last_position", positions, constant("one", 1, dtype=np.int32))
    last = operation("Reshape", "last", last_of_rows, constant("row", -1))
    longest = operation("ReduceMax", "longest", positions, keepdims=0)
    graph.insert_before(graph[0], nodes)
    return _Lengths(of_rows, last, longest)


def _no_sink(graph: ir.Graph, heads: int, head_dim: int) -> list[ir.Value | None]:
    """Return the inputs for attention sinks of -∞, float32 [heads], which do not change the result.

    With them ONNX Runtime takes the kernel that computes all scores at once. Its kernel for long prompts, which
    computes them block by block, reads the keys and values of a single query more slowly.
    """
    if head_dim < _SINK_FROM:
        return []
    name = "attention.no_sink"
    found = graph.initializers.get(name)
    return [*_BEFORE_SINK, found or initializer(graph, name, np.full(heads, -np.inf, dtype=np.float32))]


def _replace(graph: ir.Graph, number: int, layer: _SelfAttention, past: list[ir.Value], lengths: _Lengths) -> None:
    """Replace the attention of a layer by one GroupQueryAttention."""
    attention, nodes = layer.attention, list[ir.Node]()
    heads = attention.output.shape[2]
    states = [
        attention.flat(graph, state, suffix, nodes)
        for state, suffix in ((attention.query, "query"), (layer.key, "key"), (layer.value, "value"))
    ]
    fused = ir.node(
        "GroupQueryAttention",
        [*states, *past, lengths.last, lengths.longest, *_no_sink(graph, heads, attention.output.shape[3])],
        {"num_heads": heads, "kv_num_heads": heads, "scale": attention.scale},
        domain="com.microsoft",
        version=1,
        num_outputs=3,
        name=f"{attention.name}/GroupQueryAttention",
    )
    for value, kept, part in zip(past, fused.outputs[1:], ("key", "value"), strict=True):
        kept.shape, kept.type = value.shape, value.type
        index = next(i for i, output in enumerate(graph.outputs) if output.name == f"present.{number}.{part}")
        graph.outputs[index].name = f"{attention.name}.{part}.copied"
        kept.name = f"present.{number}.{part}"
        graph.outputs[index] = kept
    attention.replace(graph, fused, nodes)
