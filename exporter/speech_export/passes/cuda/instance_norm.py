"""A group norm of one channel a group as InstanceNormalization.

ONNX Runtime has a kernel for InstanceNormalization, and replaces GroupNormalization by a dozen operations.
"""

import onnx_ir as ir


def prefer_instance_norms(model: ir.Model) -> None:
    """Replace every GroupNormalization that has as many groups as channels."""
    for node in [node for node in model.graph if node.op_type == "GroupNormalization"]:
        shape = node.inputs[0].shape if node.inputs[0] is not None else None
        if shape is None or shape[1] != node.attributes.get_int("num_groups"):
            continue
        norm = ir.node(
            "InstanceNormalization",
            node.inputs,
            {"epsilon": node.attributes.get_float("epsilon", 1e-5)},
            name=str(node.name).replace("/GroupNormalization", "/InstanceNormalization"),
        )
        ir.convenience.replace_nodes_and_values(model.graph, node, [node], [norm], node.outputs, norm.outputs)
