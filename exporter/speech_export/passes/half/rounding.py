"""A half-precision graph that says on a CPU what a GPU says.

ONNX Runtime has hardly any half-precision kernels for CPUs. It computes such a graph in float32 and takes out the casts
between its nodes: nothing is rounded, nothing overflows, and every half-precision graph looks right. Here each node
computes in float32, as a GPU accumulates, and what it makes is rounded to half for all to see.
"""

import onnx_ir as ir

from .casts import HALF, Casts
from .float32_nodes import MOVES, reads_shape_only


def round_explicitly(model: ir.Model) -> None:
    """Cast to float32 before every half-precision node, and back behind it, in place; the interface stays as it is.

    To be run without graph optimisations, which may take casts out again.

    Args:
        model: of `to_half`.
    """
    casts = Casts(model.graph)
    for node in list(model.graph):
        if node.op_type in MOVES or node.op_type == "Cast" or reads_shape_only(node):
            continue
        for value in dict.fromkeys(value for value in node.inputs if value is not None and value.dtype == HALF):
            casts.give(node, value)
        for value in node.outputs:
            if value.dtype == HALF:
                casts.round(value)
    for name, weight in list(model.graph.initializers.items()):
        if not weight.uses():
            del model.graph.initializers[name]
