"""Quantise what a convolution sees before its windows are laid side by side, not after.

Windows overlap, and bytes are a quarter of floats: both what is copied and what is quantised gets smaller. The range
is that of all frames instead of all windows, which is the same unless the last frame is in no window.
"""

import onnx_ir as ir


def quantize_before_windows(model: ir.Model) -> None:
    """Replace DynamicQuantizeMatMul of gathered rows by MatMulIntegerToFloat of gathered bytes; goes after int8."""
    for node in list(model.graph):
        if node.op_type != "DynamicQuantizeMatMul":
            continue
        reshape = _only_producer(node.inputs[0], "Reshape")
        gather = _only_producer(reshape.inputs[0], "Gather") if reshape is not None else None
        if reshape is not None and gather is not None and gather.attributes.get_int("axis", 0) == 1:
            _quantize_first(model.graph, gather, reshape, node)


def _quantize_first(graph: ir.Graph, gather: ir.Node, reshape: ir.Node, product: ir.Node) -> None:
    quantize = ir.node("DynamicQuantizeLinear", [gather.inputs[0]], num_outputs=3, name=f"{product.name}/quantize")
    values, scale, zero_point = quantize.outputs
    for value, part in zip(quantize.outputs, ("int8", "scale", "zero_point"), strict=True):
        value.name = f"{product.name}.input.{part}"
    graph.insert_before(gather, quantize)
    gather.replace_input_with(0, values)
    for node in (gather, reshape):
        node.outputs[0].type = ir.TensorType(ir.DataType.UINT8)
    x, weight, weight_scale, weight_zero_point, bias = (*product.inputs, None, None)[:5]
    inputs = [x, weight, scale, weight_scale, zero_point, weight_zero_point, bias]
    integer = ir.node("MatMulIntegerToFloat", inputs, domain=product.domain, name=product.name)
    ir.convenience.replace_nodes_and_values(graph, product, [product], [integer], product.outputs, integer.outputs)


def _only_producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """What made `value`, if that is an `op_type` of which nothing else is read."""
    node = value.producer() if value is not None and len(value.uses()) == 1 else None
    return node if node is not None and node.op_type == op_type else None
