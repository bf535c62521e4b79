"""The positional convolution of Wav2Vec2 and related models, with a kernel of 128 frames and 16 groups.

Computed directly, it takes as long as a whole layer of the transformer.
"""

from typing import Any

import torch
from torch import Tensor, nn

from .block_convolution import BlockConvolution
from .fourier_convolution import FourierConvolution
from .replacement import Replacement


class Positions(nn.Module):
    """Position embeddings; follows `Wav2Vec2PositionalConvEmbedding` and `HubertPositionalConvEmbedding`."""

    def __init__(self, embedding: Any, quantized: bool) -> None:
        super().__init__()
        norm = getattr(embedding, "batch_norm", None)
        self.batch_norm = None if norm is None else _Affine(norm)
        self.conv = (BlockConvolution if quantized else FourierConvolution)(embedding.conv)
        self.activation = embedding.activation

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return the position embeddings of [batch, frames, width], in the same shape."""
        if self.batch_norm is not None:
            hidden_states = self.batch_norm(hidden_states)
        embeddings: Tensor = self.activation(self.conv(hidden_states))
        return embeddings


class _Affine(nn.Module):
    """A batch norm in inference, channels last."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        scale = norm.weight.detach() * torch.rsqrt(norm.running_var + norm.eps)
        self.weight, self.bias = _constant(scale), _constant(norm.bias.detach() - norm.running_mean * scale)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Normalise [..., channels]."""
        return hidden_states * self.weight + self.bias


def positional_convolution(module: nn.Module, quantized: bool) -> Replacement | None:
    """Return the replacement of `module`, fast in int8 if `quantized`; None if it is not such a convolution."""
    children = dict(module.named_children())
    conv = children.get("conv")
    if not isinstance(conv, nn.Conv1d) or children.keys() - {"batch_norm"} != {"conv", "padding", "activation"}:
        return None
    if conv.stride != (1,) or conv.dilation != (1,) or conv.padding != (conv.kernel_size[0] // 2,):
        return None
    frames = conv.kernel_size[0] + 3
    return Replacement(Positions(module, quantized), example=torch.randn(2, frames, conv.in_channels))


def _constant(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.float().contiguous(), requires_grad=False)
