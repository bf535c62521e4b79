"""The length of an utterance, a sum over its mask, in float64.

ONNX Runtime adds integers up one at a time. In float64 the sum takes 23 µs instead of 113 for 3 s of audio, and is
exact up to 2⁵³.
"""

import onnx_ir as ir

from speech_runtime.bundle.graph_io import ATTENTION_MASK


def count_mask_fast(model: ir.Model) -> None:
    """Let every ReduceSum over the attention mask of the audio add in float64."""
    for mask in [value for value in model.graph.inputs if value.name == ATTENTION_MASK]:
        for node, index in tuple(mask.uses()):
            if node.op_type == "ReduceSum" and index == 0 and mask.dtype == ir.DataType.INT64:
                _sum_in_float64(model.graph, node, mask)


def _sum_in_float64(graph: ir.Graph, node: ir.Node, mask: ir.Value) -> None:
    (count,) = node.outputs
    wide = ir.node("Cast", [mask], {"to": ir.DataType.DOUBLE}, name=f"{node.name}/wide")
    whole = ir.node("Cast", [count], {"to": ir.DataType.INT64}, name=f"{node.name}/whole")
    wide.outputs[0].name, whole.outputs[0].name = f"{count.name}.samples", f"{count.name}.whole"
    whole.outputs[0].shape, whole.outputs[0].type = count.shape, count.type
    ir.convenience.replace_all_uses_with(count, whole.outputs[0], replace_graph_outputs=True)
    whole.replace_input_with(0, count)
    node.replace_input_with(0, wide.outputs[0])
    count.type = ir.TensorType(ir.DataType.DOUBLE)
    graph.insert_before(node, wide)
    graph.insert_after(node, whole)
