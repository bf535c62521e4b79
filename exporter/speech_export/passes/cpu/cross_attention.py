"""Cross-attention as one `com.microsoft::MultiHeadAttention`, a kernel of ONNX Runtime, instead of seven operations.

The kernel takes keys and values as `decoder_init` returns them, and the mask of frames as the encoder returns it.
"""

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from speech_runtime.bundle.graph_io import ENCODER_ATTENTION_MASK

from ..patterns.attention import Attention, attention_over, lets_see, mask_computer, zeros

_SIZES = {"batch": 2, "beams": 3, "past_beams": 3, "frames": 5, "past": 4, "tokens": 2}
_FRAMES = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
"""Mask of frames with audio, for two utterances: the example that a mask is computed on."""


def fuse_cross_attention(model: ir.Model, layers: int) -> None:
    """Fuse the cross-attention of the step graph in every layer that has plain attention."""
    graph = model.graph
    inputs = {value.name: value for value in graph.inputs}
    found = {
        layer: attention_over(inputs[f"cross.{layer}.key"], inputs[f"cross.{layer}.value"]) for layer in range(layers)
    }
    attentions = {layer: attention for layer, attention in found.items() if attention is not None}
    frames = inputs[ENCODER_ATTENTION_MASK]
    padding = ir.node("Cast", [frames], {"to": ir.DataType.INT32.value}, name="cross/frames")
    padding.outputs[0].name = "cross.frames"
    masks = {attention.mask for attention in attentions.values() if attention.mask is not None}
    known = {mask: padding.outputs[0] for mask in masks if _hides_frames_without_audio(model, mask, frames)}
    graph.insert_before(graph[0], padding)
    for layer, attention in attentions.items():
        if attention.mask is None or attention.mask in known:
            states = inputs[f"cross.{layer}.key"], inputs[f"cross.{layer}.value"]
            _replace(graph, attention, states, known.get(attention.mask))
    RemoveUnusedNodesPass()(model)


def _hides_frames_without_audio(model: ir.Model, mask: ir.Value, frames: ir.Value) -> bool:
    """Return true if a mask lets every token see the frames that have audio, and nothing else."""
    compute = mask_computer(model, mask, computed_from={frames})
    if compute is None:
        return False

    def shown(value: ir.Value) -> NDArray[Any]:
        return _FRAMES if value is frames else zeros(value, _SIZES)

    return lets_see(compute(shown), _FRAMES[:, None, None, :] == 1)


def _replace(
    graph: ir.Graph, attention: Attention, states: tuple[ir.Value, ir.Value], padding: ir.Value | None
) -> None:
    nodes: list[ir.Node] = []
    query = attention.flat(graph, attention.query, "query", nodes)
    fused = ir.node(
        "MultiHeadAttention",
        [query, *states, *([] if padding is None else [None, padding])],
        {
            "num_heads": attention.output.shape[2],
            "scale": attention.scale,
            "mask_filter_value": float(np.finfo(np.float32).min),
        },
        domain="com.microsoft",
        version=1,
        name=f"{attention.name}/MultiHeadAttention",
    )
    attention.replace(graph, fused, nodes)
