"""The masks that Attention adds to its scores: they hide keys, and how large their numbers are does not matter."""

import onnx_ir as ir

_MASK = 3
"""Position of the mask among the inputs of Attention."""
_MOVES = ("Expand", "Reshape", "Unsqueeze")


def mask_nodes(graph: ir.Graph) -> set[ir.Node]:
    """Return the nodes that choose between two numbers for the mask of an Attention, and that move these.

    In half precision the lower of the two is the lowest number of half, which outweighs any score as well.
    """
    found: set[ir.Node] = set()
    for node in graph:
        if node.op_type == "Attention" and not node.domain and len(node.inputs) > _MASK:
            found.update(_made_by(node.inputs[_MASK]))
    return found


def _made_by(mask: ir.Value | None) -> list[ir.Node]:
    nodes = []
    while mask is not None and (node := mask.producer()) is not None:
        nodes.append(node)
        if node.op_type == "Where" and all(map(_is_number, node.inputs[1:])):
            return nodes
        if node.op_type not in _MOVES:
            break
        mask = node.inputs[0]
    return []


def _is_number(value: ir.Value | None) -> bool:
    constant = None if value is None else value.const_value
    return constant is not None and constant.size == 1
