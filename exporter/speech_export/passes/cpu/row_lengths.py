"""A step whose rows have pasts of different lengths, so that utterances can join a batch that is running.

As traced, all rows share the length of the past, and the positions of the new tokens with it. Here each row looks its
positions up by its own length.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ..patterns.attention import mask_computer, zeros
from ..patterns.projections import initializer

_PASTS = (0, 1, 5)
"""Lengths of the past at which a lookup of positions is compared with the rows of its table."""

_SIZES = {"batch": 1, "beams": 2, "frames": 3, "tokens": 2, "rows": 2, "room": 8}

_OF_POSITIONS = frozenset(
    {"Add", "Cast", "Concat", "Expand", "Range", "Reshape", "Squeeze", "Sub", "Tile", "Unsqueeze"}
)
"""Operators between the length of the past and a lookup. Others compute more than positions."""


@dataclass(frozen=True)
class _Lookup:
    """A lookup of the positions of the new tokens: rows of `table` [positions, width], from past + `offset` on."""

    found: ir.Value
    table: ir.Value
    offset: int


@dataclass(frozen=True)
class _Uses:
    """What a graph does with the length of the past: it looks positions up, and adds it to a number of each row."""

    lookups: list[ir.Value]
    sums: list[tuple[ir.Node, int]]


def let_lengths_differ(model: ir.Model, past_length: ir.Value, lengths: ir.Value, input_ids: ir.Value) -> bool:
    """Give each row its own positions, if the graph uses the length of the past for nothing else.

    Args:
        model: `decoder_with_past`, with a cache in place.
        past_length: Its input, int64 [1], which becomes [batch].
        lengths: The same number for each row, int64 [batch × beams, 1], which is computed from it.
        input_ids: Its input, int64 [batch, beams, tokens].

    Returns:
        False if the graph was not changed, since its rows must be of one length.
    """
    uses = _uses(past_length, lengths)
    lookups = [_lookup(model, value, past_length) for value in uses.lookups] if uses else []
    if uses is None or None in lookups:
        return False
    graph = model.graph
    nodes: list[ir.Node] = []

    def operation(op_type: str, name: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        nodes.append(ir.node(op_type, inputs, attributes, name=f"positions/{name}"))
        nodes[-1].outputs[0].name = f"positions.{name}"
        return nodes[-1].outputs[0]

    def number(name: str, value: int) -> ir.Value:
        return initializer(graph, f"positions.{name}", np.array(value))

    tokens = operation("Squeeze", "count", operation("Shape", "tokens", input_ids, start=2, end=3))
    index = operation("Range", "index", number("zero", 0), tokens, number("one", 1))
    positions = operation("Add", "rows", lengths, index)
    for lookup in filter(None, lookups):
        first = positions
        if lookup.offset:
            first = operation("Add", f"{lookup.found.name}.first", positions, number("offset", lookup.offset))
        own = operation("Gather", lookup.found.name, lookup.table, first)
        own.type = lookup.found.type
        ir.convenience.replace_all_uses_with(lookup.found, own)
    for node, operand in uses.sums:
        dtype = node.inputs[operand].dtype
        same = lengths if dtype == lengths.dtype else operation("Cast", f"lengths.{dtype}", lengths, to=dtype.value)
        node.replace_input_with(operand, same)
    graph.insert_after(lengths.producer(), nodes)
    past_length.shape = ir.Shape(["batch"])
    RemoveUnusedNodesPass()(model)
    return True


def _uses(past_length: ir.Value, lengths: ir.Value) -> _Uses | None:
    """Return the uses of the length of the past; None if anything but positions is computed from it."""
    lookups: dict[ir.Value, None] = {}
    sums: list[tuple[ir.Node, int]] = []
    plain, seen, pending = {past_length}, {lengths}, [past_length]
    while pending:
        value = pending.pop()
        for node, index in value.uses():
            (output,) = node.outputs
            if value in plain and node.op_type == "Add" and _is_of_rows(node.inputs[1 - index]):
                sums.append((node, index))
            elif node.op_type in _OF_POSITIONS or output in seen or _holds_positions(node):
                if value in plain and node.op_type in ("Squeeze", "Cast"):
                    plain.add(output)
                if output not in seen:
                    pending.append(output)
                    seen.add(output)
            elif _is_lookup(node, index):
                lookups[output] = None
            else:
                return None
    return _Uses(list(lookups), sums)


def _is_of_rows(value: ir.Value) -> bool:
    """Return true for whole numbers [rows, tokens]: RoBERTa counts the tokens of a row that are not padding."""
    shape, dtype = value.shape, value.dtype
    is_whole = dtype is not None and dtype.is_integer()
    return is_whole and shape is not None and len(shape) == 2 and str(shape[0]) == "batch*beams"


def _is_lookup(node: ir.Node, index: int) -> bool:
    """Return true if input `index` of `node` says what to look up."""
    return (node.op_type in ("Gather", "GatherND") and index == 1) or (node.op_type == "Slice" and index in (1, 2))


def _holds_positions(lookup: ir.Node) -> bool:
    """Return true for a lookup in a table of whole numbers: BERT keeps its positions in one."""
    table = lookup.inputs[0]
    return lookup.op_type in ("Slice", "Gather") and table.const_value is not None and table.dtype == ir.DataType.INT64


def _lookup(model: ir.Model, value: ir.Value, past_length: ir.Value) -> _Lookup | None:
    """Return what `value` is made of, if it has a row of a constant table for each new token, and is only added."""
    table = value.producer().inputs[0]
    rows = None if table is None or table.const_value is None else table.const_value.numpy()
    compute = mask_computer(model, value, computed_from={past_length})
    if rows is None or rows.ndim != 2 or compute is None or any(node.op_type != "Add" for node, _ in value.uses()):
        return None

    def shown(past: int) -> NDArray[Any]:
        """Return what the tokens after a past of this length look up, [tokens, width]."""
        found = compute(lambda source: np.array([past]) if source is past_length else zeros(source, _SIZES))
        looked_up: NDArray[Any] = found.reshape(-1, *found.shape[-2:])[0]
        return looked_up

    first = shown(0)
    for offset in np.flatnonzero((rows == first[0]).all(axis=1)).tolist():
        if all(np.array_equal(shown(past), rows[offset + past :][: len(first)]) for past in _PASTS):
            return _Lookup(value, table, offset)
    return None
