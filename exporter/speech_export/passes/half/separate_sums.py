"""Takes the sums out of `com.microsoft::SkipLayerNormalization`, so that each is rounded as its kernel rounds it.

The kernel adds in the type of its tensors, the bias first and then the residual; only the norm computes in float32.
"""

import onnx_ir as ir

_SUM = 3
"""Position of the output that is the sum."""


def separate_sums(model: ir.Model) -> None:
    """Replace every SkipLayerNormalization by an Add for each term and a LayerNormalization."""
    for node in [node for node in model.graph if node.op_type == "SkipLayerNormalization"]:
        given, skip, scale, shift, bias = (*node.inputs, None, None)[:5]
        added = ([] if bias is None else [_add(given, bias, f"{node.name}/bias")]) if given is not None else []
        total = _add(added[-1].outputs[0] if added else given, skip, f"{node.name}/Add")
        norm = ir.node(
            "LayerNormalization",
            [total.outputs[0], scale, *([] if shift is None else [shift])],
            {"axis": -1, "epsilon": node.attributes.get_float("epsilon", 1e-12)},
            name=node.name,
        )
        replaced = [(node.outputs[0], norm.outputs[0])]
        replaced += [(node.outputs[_SUM], total.outputs[0])] if len(node.outputs) > _SUM else []
        for old, new in replaced:
            new.shape, new.type = old.shape, old.type
        for each in (*added, total):
            each.outputs[0].shape, each.outputs[0].type = node.outputs[0].shape, node.outputs[0].type
        model.graph.insert_before(node, [*added, total, norm])
        for old, new in replaced:
            ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        names = [old.name for old, _ in replaced]
        model.graph.remove(node, safe=True)
        for name, (_, new) in zip(names, replaced, strict=True):
            new.name = name


def _add(value: ir.Value | None, other: ir.Value | None, name: str) -> ir.Node:
    node = ir.node("Add", [value, other], name=name)
    node.outputs[0].name = name
    return node
