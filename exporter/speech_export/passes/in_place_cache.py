"""A self-attention cache that a step writes into, where it is: nothing of it is copied from one step to the next.

As traced, a step gathers the cache by `beam_idx` and appends to a copy. Here every layer becomes one
`com.microsoft::GroupQueryAttention`, which appends the new keys and values to a cache with room for more, in place
where `present` is bound to the memory of `past`. Which beam goes on from which is left to the runtime: most of what two
beams have seen is the same, and need not be moved (`speech_runtime.generation.in_place_cache`).
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from speech_runtime.contract import BEAM_IDX, INPUT_IDS, PAST_LENGTH, cache_names

from .projections import initializer

_HEADS_OUTSIDE = (0, 2, 1, 3)
_SEEN = (1, 7, 100, 1000)
"""Lengths of the past at which a mask is compared with a causal one."""


@dataclass(frozen=True)
class _Attention:
    """The self-attention of one layer.

    Attributes:
        query, key, value: of the new tokens, float32 [rows, heads, tokens, head_dim].
        scale: of the scores.
        mask: added to the scores.
        output: float32 [rows, tokens, heads, head_dim].
    """

    query: ir.Value
    key: ir.Value
    value: ir.Value
    scale: float
    mask: ir.Value
    output: ir.Value


def keep_cache_in_place(model: ir.Model, layers: int, heads: int, head_dim: int, max_positions: int | None) -> bool:
    """Let the step graph append to its cache instead of copying it.

    Inputs `past` and outputs `present` become [batch × beams, heads, room, head_dim]; `past_length` int64 [1], how much
    of the room is taken, comes instead of `beam_idx`.

    Args:
        model: `decoder_with_past` as traced.
        layers: that have a cache.
        heads: of the caches.
        head_dim: of the caches.
        max_positions: tokens of a sequence; None where there is no limit.

    Returns:
        Whether the graph could be changed: all of its attention is plain and causal. If not it is as it was.
    """
    graph = model.graph
    inputs = {value.name: value for value in graph.inputs}
    past = [inputs[name] for name in cache_names("past", layers)]
    found = [_attention(graph, layer) for layer in range(layers)]
    attentions = [attention for attention in found if attention is not None]
    plain = len(attentions) == layers and head_dim % 8 == 0 and all(map(_only_gathered_or_measured, past))
    if not plain:
        return False
    masks = {attention.mask for attention in attentions}
    if not all(_is_causal(model, mask, max_positions) for mask in masks):
        return False
    past_length = ir.Value(name=PAST_LENGTH, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([1]))
    graph.inputs[graph.inputs.index(inputs[BEAM_IDX])] = past_length
    _measure_by(past_length, past, inputs[BEAM_IDX], inputs[INPUT_IDS])
    lengths = _lengths(graph, inputs[INPUT_IDS], past_length)
    for layer, attention in enumerate(attentions):
        _replace(graph, layer, attention, past[2 * layer : 2 * layer + 2], lengths, (heads, head_dim))
    RemoveUnusedNodesPass()(model)
    return True


def _attention(graph: ir.Graph, layer: int) -> _Attention | None:
    """The operations of `speech_export.attention.attention` around the cache of a layer, if that is what there is."""
    present = {value.name: value for value in graph.outputs}
    key, value = (present[name] for name in (f"present.{layer}.key", f"present.{layer}.value"))
    new_key, new_value = _appended(key), _appended(value)
    keys, values = _only_user(key, "Reshape"), _only_user(value, "Reshape")
    transposed = _only_user(keys, "Transpose", perm=(0, 1, 3, 2))
    scores = _only_user(transposed, "MatMul")
    masked = _only_user(scores, "Add")
    attended = _only_user(_only_user(masked, "Softmax"), "MatMul")
    output = _only_user(attended, "Transpose", perm=_HEADS_OUTSIDE)
    if new_key is None or new_value is None or output is None or scores is None or masked is None or attended is None:
        return None
    if scores.producer().inputs[1] is not transposed or attended.producer().inputs[1] is not values:
        return None
    scaled = _producer(scores.producer().inputs[0], "Mul")
    factor = None if scaled is None else scaled.inputs[1].const_value
    if scaled is None or factor is None or factor.size != 1:
        return None
    mask = next(each for each in masked.producer().inputs if each is not scores)
    return _Attention(scaled.inputs[0], new_key, new_value, float(factor.numpy().item()), mask, output)


def _appended(present: ir.Value) -> ir.Value | None:
    """What is appended to a past, [rows, heads, tokens, head_dim]."""
    joined = _producer(present, "Concat")
    if joined is None or len(joined.inputs) != 2 or _producer(joined.inputs[0], "GatherND") is None:
        return None
    split = _producer(joined.inputs[1], "Reshape")
    return None if split is None else split.inputs[0]


def _producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == op_type else None


def _only_user(value: ir.Value | None, op_type: str, perm: tuple[int, ...] | None = None) -> ir.Value | None:
    """What the one node that uses `value` makes of it, if it is an `op_type`."""
    if value is None or len(value.uses()) != 1:
        return None
    ((node, _),) = value.uses()
    if node.op_type != op_type or (perm is not None and tuple(node.attributes.get_ints("perm", ())) != perm):
        return None
    return node.outputs[0]


def _only_gathered_or_measured(past: ir.Value) -> bool:
    """Whether nothing of a past matters but what is gathered of it, and how long it is."""
    return all(
        (node.op_type == "GatherND" and index == 0) or (node.op_type == "Shape" and _dimensions(node) == (3, 4))
        for node, index in past.uses()
    )


def _dimensions(shape: ir.Node) -> tuple[int, int]:
    return shape.attributes.get_int("start", 0), shape.attributes.get_int("end", -1)


def _is_causal(model: ir.Model, mask: ir.Value, max_positions: int | None) -> bool:
    """Whether a mask lets a token see itself and all that came before, and nothing else.

    It is computed for some lengths: a family may have made it in any way, of the sizes of tokens and past alone.
    """
    measured, computed = _sources(mask)
    inputs = set(model.graph.inputs)
    if computed & inputs:
        return False
    sources = [value for value in model.graph.inputs if value in measured]
    graph = ir.convenience.extract(model.graph, sources, [mask])
    proto = ir.to_proto(ir.Model(graph, ir_version=model.ir_version)).SerializeToString()
    session = onnxruntime.InferenceSession(proto, providers=["CPUExecutionProvider"])
    longest = max_positions or _SEEN[-1]
    cases = [(0, min(4, longest)), *((min(past, longest - 1), 1) for past in _SEEN)]
    return all(_is_causal_at(session, sources, past, tokens) for past, tokens in cases)


def _is_causal_at(session: onnxruntime.InferenceSession, sources: list[ir.Value], past: int, tokens: int) -> bool:
    sizes = {"batch": 1, "beams": 2, "past_beams": 2, "frames": 3, "past": past, "tokens": tokens}

    def example(value: ir.Value) -> NDArray[np.generic]:
        shape = [size if isinstance(size, int) else sizes[str(size)] for size in value.shape]
        return np.zeros(shape, dtype=value.dtype.numpy())

    (added,) = session.run(None, {value.name: example(value) for value in sources})
    seen = np.arange(past + tokens) <= np.arange(past, past + tokens)[:, None]
    return bool(np.array_equal(added == 0, np.broadcast_to(seen, added.shape)) and (added[added != 0] < -1e30).all())


def _sources(value: ir.Value) -> tuple[set[ir.Value], set[ir.Value]]:
    """The values that only the sizes of matter to `value`, and all others that it is computed from."""
    measured, computed, pending = set[ir.Value](), set[ir.Value](), [value]
    while pending:
        node = pending.pop().producer()
        for source in node.inputs if node is not None else ():
            if node.op_type == "Shape" and source.is_graph_input():
                measured.add(source)
            elif source is not None and source not in computed:
                computed.add(source)
                pending.append(source)
    return measured, computed


def _measure_by(past_length: ir.Value, past: list[ir.Value], beam_idx: ir.Value, input_ids: ir.Value) -> None:
    """Let what was the length of a past be `past_length`, and the numbers of beams those of the tokens."""
    for value in past:
        for node, _ in tuple(value.uses()):
            if node.op_type == "Shape":
                ir.convenience.replace_all_uses_with(node.outputs[0], past_length)
    for node, index in tuple(beam_idx.uses()):
        if node.op_type == "Shape":
            node.replace_input_with(index, input_ids)


@dataclass(frozen=True)
class _Lengths:
    """What every layer is told: int32, the last position of each row [batch × beams], and the positions [1]."""

    last: ir.Value
    total: ir.Value


def _lengths(graph: ir.Graph, input_ids: ir.Value, past_length: ir.Value) -> _Lengths:
    nodes: list[ir.Node] = []

    def operation(op_type: str, name: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        nodes.append(ir.node(op_type, inputs, attributes, name=f"lengths/{name}"))
        nodes[-1].outputs[0].name = f"lengths.{name}"
        return nodes[-1].outputs[0]

    def size(name: str, axis: int) -> ir.Value:
        return operation("Shape", name, input_ids, start=axis, end=axis + 1)

    one = initializer(graph, "lengths.one", np.array([1], dtype=np.int32))
    rows = operation("Mul", "rows", size("batch", 0), size("beams", 1))
    positions = operation("Add", "positions", past_length, size("tokens", 2))
    total = operation("Cast", "total", positions, to=ir.DataType.INT32.value)
    last = operation("Expand", "last", operation("Sub", "last_position", total, one), rows)
    graph.insert_before(graph[0], nodes)
    return _Lengths(last, total)


def _replace(
    graph: ir.Graph,
    layer: int,
    attention: _Attention,
    past: list[ir.Value],
    lengths: _Lengths,
    shape: tuple[int, int],
) -> None:
    """Put the one operation where the attention's output was made."""
    heads, head_dim = shape
    last = attention.output.producer()
    name = last.name.partition("/")[0]
    nodes: list[ir.Node] = []

    def operation(op_type: str, suffix: str, *inputs: ir.Value, **attributes: object) -> ir.Value:
        nodes.append(ir.node(op_type, inputs, attributes, name=f"{name}/{suffix}"))
        nodes[-1].outputs[0].name = f"{name}.{suffix}"
        return nodes[-1].outputs[0]

    def flat(state: ir.Value, suffix: str) -> ir.Value:
        """A state [rows, heads, tokens, head_dim] as [rows, tokens, heads · head_dim]."""
        split = _transposed_from(state)
        if split is not None and (whole := _split_from(split, heads * head_dim)) is not None:
            return whole
        if split is None:
            split = operation("Transpose", f"{suffix}.tokens", state, perm=_HEADS_OUTSIDE)
        width = initializer(graph, f"{name}.{suffix}.shape", np.array([0, 0, heads * head_dim], dtype=np.int64))
        return operation("Reshape", f"{suffix}.flat", split, width)

    states = [flat(attention.query, "query"), flat(attention.key, "key"), flat(attention.value, "value")]
    fused = ir.node(
        "GroupQueryAttention",
        [*states, *past, lengths.last, lengths.total],
        {"num_heads": heads, "kv_num_heads": heads, "scale": attention.scale},
        domain="com.microsoft",
        version=1,
        num_outputs=3,
        name=f"{name}/GroupQueryAttention",
    )
    attended, *present = fused.outputs
    attended.name, attended.type = f"{name}.attended", ir.TensorType(ir.DataType.FLOAT)
    for value, kept, part in zip(past, present, ("key", "value"), strict=True):
        room = ir.Shape(["rows", heads, "room", head_dim])
        value.shape = kept.shape = room
        kept.type = value.type
        index = next(i for i, output in enumerate(graph.outputs) if output.name == f"present.{layer}.{part}")
        graph.outputs[index].name = f"{name}.{part}.copied"
        kept.name = f"present.{layer}.{part}"
        graph.outputs[index] = kept
    nodes.append(fused)
    graph.insert_before(last, nodes)
    nodes.clear()
    split = initializer(graph, f"{name}.split.shape", np.array([0, 0, heads, head_dim], dtype=np.int64))
    again = operation("Reshape", "split", attended, split)
    graph.insert_before(last, nodes)
    ir.convenience.replace_all_uses_with(attention.output, again)


def _transposed_from(state: ir.Value) -> ir.Value | None:
    node = _producer(state, "Transpose")
    if node is None or tuple(node.attributes.get_ints("perm", ())) != _HEADS_OUTSIDE:
        return None
    return node.inputs[0]


def _split_from(split: ir.Value, width: int) -> ir.Value | None:
    """What a Reshape made [rows, tokens, heads, head_dim] of, if it is [rows, tokens, `width`]."""
    node = _producer(split, "Reshape")
    whole = None if node is None else node.inputs[0]
    fits = whole is not None and whole.shape is not None and len(whole.shape) == 3 and whole.shape[2] == width
    return whole if fits else None
