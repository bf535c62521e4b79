"""Attention in a traced graph, as `speech_export.tracing.attention.attention` writes it, and its mask."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from .projections import initializer

_HEADS_OUTSIDE = (0, 2, 1, 3)

Shown = Callable[[ir.Value], NDArray[Any]]
"""Function that returns the array for a graph input, to compute a mask with."""


@dataclass(frozen=True)
class Attention:
    """One plain attention.

    Attributes:
        query: Queries, float32 [rows, heads, queries, head_dim].
        scale: Factor of the scores.
        mask: Mask that is added to the scores; None for no mask.
        output: Attended values, float32 [rows, queries, heads, head_dim].
    """

    query: ir.Value
    scale: float
    mask: ir.Value | None
    output: ir.Value

    @property
    def name(self) -> str:
        """Name of its module."""
        name: str = self._last.name
        return name.partition("/")[0]

    @property
    def _last(self) -> ir.Node:
        return self.output.producer()

    def replace(self, graph: ir.Graph, fused: ir.Node, nodes: list[ir.Node]) -> None:
        """Replace the attention by `nodes` and `fused`, which returns [rows, queries, heads · head_dim]."""
        rows, queries, heads, head_dim = self.output.shape
        attended = fused.outputs[0]
        attended.name, attended.type = f"{self.name}.attended", ir.TensorType(ir.DataType.FLOAT)
        attended.shape = ir.Shape([rows, queries, heads * head_dim])
        shape = initializer(graph, f"{self.name}.split.shape", np.array([0, 0, heads, head_dim], dtype=np.int64))
        split = ir.node("Reshape", [attended, shape], name=f"{self.name}/split")
        split.outputs[0].name = f"{self.name}.split"
        split.outputs[0].shape, split.outputs[0].type = self.output.shape, self.output.type
        graph.insert_before(self._last, [*nodes, fused, split])
        ir.convenience.replace_all_uses_with(self.output, split.outputs[0])

    def flat(self, graph: ir.Graph, state: ir.Value, suffix: str, nodes: list[ir.Node]) -> ir.Value:
        """Return a state [rows, heads, tokens, head_dim] as [rows, tokens, heads · head_dim].

        Mostly this is the value that the state was made from; otherwise nodes that make it are added to `nodes`.
        """
        _, _, heads, head_dim = self.output.shape
        split = _transposed_from(state)
        if split is not None and (whole := _split_from(split, heads * head_dim)) is not None:
            return whole

        def operation(op_type: str, name: str, *inputs: ir.Value, **attributes: object) -> ir.Value:
            nodes.append(ir.node(op_type, inputs, attributes, name=f"{self.name}/{name}"))
            nodes[-1].outputs[0].name = f"{self.name}.{name}"
            return nodes[-1].outputs[0]

        if split is None:
            split = operation("Transpose", f"{suffix}.tokens", state, perm=_HEADS_OUTSIDE)
        width = initializer(graph, f"{self.name}.{suffix}.shape", np.array([0, 0, heads * head_dim], dtype=np.int64))
        return operation("Reshape", f"{suffix}.flat", split, width)


def attention_over(keys: ir.Value | None, values: ir.Value | None) -> Attention | None:
    """Return the plain attention over `keys` and `values` [rows, heads, tokens, head_dim], if there is one."""
    transposed = only_user(keys, "Transpose", perm=(0, 1, 3, 2))
    scores = only_user(transposed, "MatMul")
    masked = only_user(scores, "Add")
    attended = only_user(only_user(masked or scores, "Softmax"), "MatMul")
    output = only_user(attended, "Transpose", perm=_HEADS_OUTSIDE)
    if output is None or scores is None or attended is None:
        return None
    if scores.producer().inputs[1] is not transposed or attended.producer().inputs[1] is not values:
        return None
    if output.shape is None or not all(isinstance(size, int) for size in output.shape[2:]):
        return None
    query, scale = _scaled(scores.producer().inputs[0])
    mask = None if masked is None else next(each for each in masked.producer().inputs if each is not scores)
    return Attention(query, scale, mask, output)


def producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """Return the node that makes `value`, if it is an `op_type`."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == op_type else None


def only_user(value: ir.Value | None, op_type: str, perm: tuple[int, ...] | None = None) -> ir.Value | None:
    """Return the output of the only node that uses `value`, if it is an `op_type`; Shape of an input does not count."""
    users = [] if value is None else [node for node, _ in value.uses()]
    if value is not None and value.is_graph_input():
        users = [node for node in users if node.op_type != "Shape"]
    if len(users) != 1:
        return None
    (node,) = users
    if node.op_type != op_type or (perm is not None and tuple(node.attributes.get_ints("perm", ())) != perm):
        return None
    return node.outputs[0]


def mask_computer(
    model: ir.Model, mask: ir.Value, computed_from: set[ir.Value]
) -> Callable[[Shown], NDArray[Any]] | None:
    """Return a function that computes `mask` from graph inputs.

    A family may make its mask in any way, so the only certain way to know its content is to compute it.

    Args:
        model: Traced graph.
        mask: Mask that is added to scores.
        computed_from: Inputs whose numbers the mask may depend on. It may depend on the sizes of all inputs.

    Returns:
        The function; None if the mask depends on other inputs.
    """
    measured, computed = _sources(mask)
    if (computed & set(model.graph.inputs)) - computed_from:
        return None
    sources = [value for value in model.graph.inputs if value in measured | computed]
    graph = ir.convenience.extract(model.graph, sources, [mask])
    proto = ir.to_proto(ir.Model(graph, ir_version=model.ir_version)).SerializeToString()
    session = onnxruntime.InferenceSession(proto, providers=["CPUExecutionProvider"])

    def compute(shown: Shown) -> NDArray[Any]:
        (added,) = session.run(None, {value.name: shown(value) for value in sources})
        found: NDArray[Any] = added
        return found

    return compute


def zeros(value: ir.Value, sizes: Mapping[str, int]) -> NDArray[Any]:
    """Return zeros for an input, with `sizes` for its dynamic dimensions."""
    shape = [size if isinstance(size, int) else sizes[str(size)] for size in value.shape]
    return np.zeros(shape, dtype=value.dtype.numpy())


def lets_see(added: NDArray[Any], seen: NDArray[np.bool_]) -> bool:
    """Return true if a mask adds 0 wherever `seen` is true, and less than any score can outweigh elsewhere."""
    shown = np.broadcast_to(seen, added.shape)
    return bool(np.array_equal(added == 0, shown) and (added[~shown] < -1e30).all())


def _sources(value: ir.Value) -> tuple[set[ir.Value], set[ir.Value]]:
    """Return the inputs that `value` depends on by their sizes alone, and all other values that it is computed from."""
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


def _scaled(query: ir.Value) -> tuple[ir.Value, float]:
    """Return a query before it was multiplied by a constant, and the constant; 1 if it was not."""
    node = producer(query, "Mul")
    factor = None if node is None else node.inputs[1].const_value
    if node is None or factor is None or factor.size != 1:
        return query, 1.0
    return node.inputs[0], float(factor.numpy().item())


def _transposed_from(state: ir.Value) -> ir.Value | None:
    node = producer(state, "Transpose")
    if node is None or tuple(node.attributes.get_ints("perm", ())) != _HEADS_OUTSIDE:
        return None
    return node.inputs[0]


def _split_from(split: ir.Value, width: int) -> ir.Value | None:
    """Return the input of the Reshape to [rows, tokens, heads, head_dim], if it is [rows, tokens, `width`]."""
    node = producer(split, "Reshape")
    whole = None if node is None else node.inputs[0]
    fits = whole is not None and whole.shape is not None and len(whole.shape) == 3 and whole.shape[2] == width
    return whole if fits else None
