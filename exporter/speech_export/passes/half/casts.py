"""One cast of a value for all who want it in the other precision."""

import onnx_ir as ir

FLOAT = ir.DataType.FLOAT
HALF = ir.DataType.FLOAT16


def weight_as(value: ir.Value, to: ir.DataType, name: str) -> ir.Value:
    """An initializer with the numbers of another, rounded when it is written: they need not be in memory twice."""
    weight = value.const_value
    assert weight is not None  # noqa: S101 - an initializer has a value
    numbers = ir.LazyTensor(
        lambda: ir.Tensor(weight.numpy().astype(to.numpy()), name=name),
        dtype=to,
        shape=ir.Shape(weight.shape),
        name=name,
    )
    return ir.Value(name=name, shape=value.shape, type=ir.TensorType(to), const_value=numbers)


class Casts:
    """The casts between float32 and float16 in a graph: those that are there, and those that a pass puts into it."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._made: dict[ir.Value, ir.Value] = {}
        for node in graph:
            if node.op_type == "Cast" and {node.inputs[0].dtype, node.outputs[0].dtype} == {FLOAT, HALF}:
                self._made[node.inputs[0]] = node.outputs[0]

    def other(self, value: ir.Value) -> ir.Value:
        """`value`, float32 or float16, as the other of the two; made right behind it, once."""
        if value not in self._made:
            to = HALF if value.dtype == FLOAT else FLOAT
            name = f"{value.name}.{'half' if to == HALF else 'single'}"
            if value.is_initializer():
                self._made[value] = self._graph.initializers[name] = weight_as(value, to, name)
                return self._made[value]
            node = ir.node("Cast", [value], {"to": to}, name=f"{name}/Cast")
            (output,) = node.outputs
            output.name, output.shape, output.type = name, value.shape, ir.TensorType(to)
            producer = value.producer()
            if producer is None:
                self._graph.insert_before(self._graph[0], node)
            else:
                self._graph.insert_after(producer, node)
            self._made[value] = output
        return self._made[value]

    def give(self, node: ir.Node, value: ir.Value) -> None:
        """Let `node` read `value` in the other precision."""
        cast = self.other(value)
        for position, given in enumerate(node.inputs):
            if given is value:
                node.replace_input_with(position, cast)

    def put_out(self, position: int) -> None:
        """Let an output of the graph come out in the other precision, under its name."""
        value = self._graph.outputs[position]
        cast, name = self.other(value), value.name
        value.name, cast.name = f"{name}.{'half' if value.dtype == HALF else 'single'}", name
        self._graph.outputs[position] = cast

    def round(self, value: ir.Value) -> None:
        """Make a float16 value float32, and let a cast of it to float16 have its name and its readers."""
        readers, as_float = value.uses(), self._made.pop(value, None)
        value.type = ir.TensorType(FLOAT)
        cast, name = self.other(value), value.name
        for use in readers:
            use.node.replace_input_with(use.idx, cast)
        value.name, cast.name = f"{name}.unrounded", name
        if as_float is not None:
            self._made[cast] = as_float
        for position, output in enumerate(self._graph.outputs):
            if output is value:
                self._graph.outputs[position] = cast
