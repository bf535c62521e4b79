"""Attention in a traced graph, as `speech_export.tracing.attention.attention` writes it, and what its mask lets see."""

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
"""What a graph input is to be, where a mask is computed."""


@dataclass(frozen=True)
class Attention:
    """One attention.

    Attributes:
        query: float32 [rows, heads, queries, head_dim].
        scale: of the scores.
        mask: added to the scores; None where nothing is.
        output: float32 [rows, queries, heads, head_dim].
    """

    query: ir.Value
    scale: float
    mask: ir.Value | None
    output: ir.Value

    @property
    def name(self) -> str:
        """Of the module that it comes from."""
        name: str = self._last.name
        return name.partition("/")[0]

    @property
    def _last(self) -> ir.Node:
        return self.output.producer()

    def replace(self, graph: ir.Graph, fused: ir.Node, nodes: list[ir.Node]) -> None:
        """Let `fused`, which makes [rows, queries, heads · head_dim], and the `nodes` before it be the attention."""
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
        """A state [rows, heads, tokens, head_dim] as [rows, tokens, heads · head_dim].

        That is what it was made of, most of the time; if not, `nodes` get what makes it.
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
    """The one attention that uses `keys` and `values` [rows, heads, tokens, head_dim], if it is the plain one."""
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
    """The node that makes `value`, if it is an `op_type`."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == op_type else None


def only_user(value: ir.Value | None, op_type: str, perm: tuple[int, ...] | None = None) -> ir.Value | None:
    """What the one node that uses `value` makes of it, if it is an `op_type`; sizes of an input do not count."""
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
    """What computes `mask` from graph inputs.

    A family may have made its mask in any way: what it lets see is known for certain only where it is computed.

    Args:
        model: the traced graph.
        mask: added to scores.
        computed_from: inputs whose numbers it may depend on; of all others it may know the sizes.

    Returns:
        None where it depends on other inputs.
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
    """An input of zeros, with `sizes` for its dynamic dimensions."""
    shape = [size if isinstance(size, int) else sizes[str(size)] for size in value.shape]
    return np.zeros(shape, dtype=value.dtype.numpy())


def lets_see(added: NDArray[Any], seen: NDArray[np.bool_]) -> bool:
    """Whether a mask adds nothing where something is to be `seen`, and what nothing outweighs everywhere else."""
    shown = np.broadcast_to(seen, added.shape)
    return bool(np.array_equal(added == 0, shown) and (added[~shown] < -1e30).all())


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


def _scaled(query: ir.Value) -> tuple[ir.Value, float]:
    """What a query was before it was multiplied by a number, and the number; 1 where it was not."""
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
    """What a Reshape made [rows, tokens, heads, head_dim] of, if it is [rows, tokens, `width`]."""
    node = producer(split, "Reshape")
    whole = None if node is None else node.inputs[0]
    fits = whole is not None and whole.shape is not None and len(whole.shape) == 3 and whole.shape[2] == width
    return whole if fits else None
