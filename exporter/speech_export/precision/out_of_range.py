"""Which nodes of a graph half precision cannot compute, for the numbers that were seen in them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from ..passes.half.float32_nodes import floats, reads_shape_only
from .value_ranges import ValueRange

_SUMS = frozenset({"Add", "Sub"})


@dataclass(frozen=True)
class OutOfRange:
    """A node that half precision cannot compute.

    Attributes:
        node: its name.
        op_type: what it does.
        value: the tensor that it reads or writes.
        largest: magnitude that was seen in it.
        reason: whether that is too large or too small.
    """

    node: str
    op_type: str
    value: str
    largest: float
    reason: str

    def __str__(self) -> str:
        return f"{self.op_type} {self.node}: {self.value} is {self.reason}, {self.largest:.3g} at most"


def nodes_out_of_range(
    graph: ir.Graph, ranges: Mapping[str, ValueRange], float32: Collection[ir.Node] = ()
) -> list[OutOfRange]:
    """Find the nodes that read or write a tensor out of half's range.

    Args:
        graph: the float32 graph that was measured.
        ranges: of its tensors.
        float32: nodes that stay float32 anyway.
    """
    nodes = (node for node in graph if node not in float32 and not reads_shape_only(node))
    return [found for node in nodes if (found := _problem(node, ranges)) is not None]


def _problem(node: ir.Node, ranges: Mapping[str, ValueRange]) -> OutOfRange | None:
    """The first tensor of `node` that is out of range."""
    for value in floats([*node.inputs, *node.outputs]):
        seen = ranges[str(value.name)]
        if seen.overflows or (seen.underflows and not _is_small_addend(node, value)):
            reason = "too large" if seen.overflows else "too small"
            return OutOfRange(str(node.name), node.op_type, str(value.name), seen.largest, reason)
    return None


def _is_small_addend(node: ir.Node, value: ir.Value) -> bool:
    """Whether a tensor is only added to another; an epsilon, which is one number, is there for where that is 0."""
    epsilon = value.is_initializer() and value.const_value is not None and value.const_value.size == 1
    return node.op_type in _SUMS and not epsilon and value not in node.outputs
