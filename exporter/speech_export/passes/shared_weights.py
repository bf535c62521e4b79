"""Store a weight once that the tracer stored twice, as it is and transposed.

The output projection of a text decoder is its embedding, transposed. Tracing folds that transposition of a small table
into a second copy, and leaves that of a large one to whoever loads the graph, who then has the copy: for a multilingual
vocabulary half of the decoder. The transposed one is kept: a matrix product wants its weight as [width, vocabulary] and
has all of it to read, the embedding of a token is as easily read off a column. So nothing is transposed again whenever
the graph is loaded.
"""

import numpy as np
import onnx_ir as ir

from .patterns.projections import initializer


def share_transposed_weights(model: ir.Model) -> None:
    """Let every Gather from a table that is another weight's transpose read that one's columns."""
    _fold_transposes(model.graph)
    matrices = [value for value in model.graph.initializers.values() if _is_matrix(value)]
    by_shape: dict[tuple[int, ...], list[ir.Value]] = {}
    for value in matrices:
        by_shape.setdefault(value.const_value.shape.numpy(), []).append(value)
    for table in [value for value in matrices if _is_only_gathered(value)]:
        rows, columns = table.const_value.shape.numpy()
        for copy in by_shape.get((columns, rows), []):
            if copy is not table and np.array_equal(copy.const_value.numpy().T, table.const_value.numpy()):
                for gather, _ in tuple(table.uses()):
                    gather_columns(model.graph, gather, copy)
                del model.graph.initializers[table.name]
                break


def gather_columns(graph: ir.Graph, gather: ir.Node, weight: ir.Value) -> None:
    """Replace a Gather of rows by one of the columns of `weight`, and a Transpose of what it finds."""
    _, indices = gather.inputs
    columns = ir.node("Gather", [weight, indices], {"axis": 1}, name=gather.name)
    rank = len(indices.shape)
    transpose = ir.node(
        "Transpose", columns.outputs, {"perm": [*range(1, rank + 1), 0]}, name=f"{gather.name}/Transpose"
    )
    (found,), (output,) = gather.outputs, transpose.outputs
    columns.outputs[0].name, columns.outputs[0].type = f"{found.name}.columns", found.type
    name, output.shape, output.type = found.name, found.shape, found.type
    graph.insert_before(gather, [columns, transpose])
    ir.convenience.replace_all_uses_with(found, output, replace_graph_outputs=True)
    graph.remove(gather, safe=True)
    output.name = name


def _fold_transposes(graph: ir.Graph) -> None:
    """Store what a Transpose makes of a matrix that something else reads too."""
    for node in [node for node in graph if node.op_type == "Transpose"]:
        (table,), (transposed,) = node.inputs, node.outputs
        if table is None or not table.is_initializer() or not _is_matrix(table):
            continue
        copy = initializer(graph, f"{table.name}.transposed", table.const_value.numpy().T)
        ir.convenience.replace_all_uses_with(transposed, copy)
        graph.remove(node, safe=True)
        if not table.uses():
            del graph.initializers[table.name]


def _is_matrix(value: ir.Value) -> bool:
    return value.const_value is not None and len(value.const_value.shape) == 2


def _is_only_gathered(value: ir.Value) -> bool:
    return bool(value.uses()) and all(
        node.op_type == "Gather" and node.attributes.get_int("axis", 0) == 0 and index == 0
        for node, index in value.uses()
    )
