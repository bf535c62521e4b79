"""Stores a weight once that would otherwise be stored twice, the second time transposed.

The output projection of a text decoder is its embedding, transposed. Tracing folds the transposition of a small table
into a second copy. It leaves the transposition of a large table in the graph, and loading the graph makes the copy: for
a multilingual vocabulary, half of the decoder. This pass keeps the transposed table [width, vocabulary]. A matrix
product reads all of it in this layout, and the embedding of a token is as easy to read from a column as from a row.
"""

import numpy as np
import onnx_ir as ir

from .patterns.projections import initializer


def share_transposed_weights(model: ir.Model) -> None:
    """Let every Gather from a table that is the transpose of another weight read the columns of that weight."""
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
    """Replace a Gather of rows by a Gather of the columns of `weight` and a Transpose of the result."""
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
    """Replace every Transpose of a constant matrix by the transposed matrix."""
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
