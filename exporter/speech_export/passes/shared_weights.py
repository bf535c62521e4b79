"""Store a weight once that the tracer stored twice, as it is and transposed.

The output projection of a text decoder is its embedding, transposed. Tracing folds that transposition into a second
copy, which for a multilingual vocabulary is half of the decoder.
"""

import numpy as np
import onnx_ir as ir


def share_transposed_weights(model: ir.Model) -> None:
    """Replace every initializer that is another one's transpose by a Transpose of that one."""
    matrices = [value for value in model.graph.initializers.values() if _is_matrix(value)]
    by_shape: dict[tuple[int, ...], list[ir.Value]] = {}
    for value in matrices:
        by_shape.setdefault(value.const_value.shape.numpy(), []).append(value)
    gathered = [value for value in matrices if any(node.op_type == "Gather" for node, _ in value.uses())]
    for table in gathered:
        rows, columns = table.const_value.shape.numpy()
        for copy in by_shape.get((columns, rows), []):
            if copy is not table and np.array_equal(copy.const_value.numpy().T, table.const_value.numpy()):
                _replace_by_transpose(model.graph, copy, table)
                break


def _is_matrix(value: ir.Value) -> bool:
    return value.const_value is not None and len(value.const_value.shape) == 2


def _replace_by_transpose(graph: ir.Graph, copy: ir.Value, table: ir.Value) -> None:
    name = copy.name
    del graph.initializers[name]
    transpose = ir.node("Transpose", [table], {"perm": [1, 0]}, name=f"{table.name}.transposed")
    (output,) = transpose.outputs
    output.name, output.shape, output.type = name, copy.shape, copy.type
    ir.convenience.replace_all_uses_with(copy, output)
    graph.insert_before(graph[0], transpose)
