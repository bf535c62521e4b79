"""The adapter of Wav2Vec2 and related models, channels last."""

from typing import Any

import torch
from torch import Tensor, nn

from .channels_last import ChannelsLastConvolution, is_convolution
from .replacement import Replacement


class ChannelsLastAdapter(nn.Module):
    """Strided convolutions, each gated by half of its channels; follows `Wav2Vec2Adapter` of transformers."""

    def __init__(self, adapter: Any) -> None:
        super().__init__()
        self.proj, self.proj_layer_norm = adapter.proj, adapter.proj_layer_norm
        self.layers = nn.ModuleList(_GatedConvolution(layer.conv) for layer in adapter.layers)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Turn [batch, frames, width] into [batch, fewer frames, width]."""
        if self.proj is not None and self.proj_layer_norm is not None:
            hidden_states = self.proj_layer_norm(self.proj(hidden_states))
        for layer in self.layers:
            hidden_states = layer(hidden_states)
        return hidden_states


class _GatedConvolution(nn.Module):
    """One half of a convolution's channels, times the sigmoid of the other half."""

    def __init__(self, conv: nn.Conv1d) -> None:
        super().__init__()
        self.conv = ChannelsLastConvolution(conv)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Convolve [batch, frames, width]."""
        return nn.functional.glu(self.conv(hidden_states), dim=-1)


def channels_last_adapter(module: Any) -> Replacement | None:
    """Return the replacement of `module`; None if it is not such an adapter."""
    layers = list(getattr(module, "layers", ()))
    if not layers or not hasattr(module, "proj_layer_norm") or not all(_is_layer(layer) for layer in layers):
        return None
    width = layers[0].conv.in_channels if module.proj is None else module.proj.in_features
    return Replacement(ChannelsLastAdapter(module), example=torch.randn(2, 13, width))


def _is_layer(layer: nn.Module) -> bool:
    children = dict(layer.named_children())
    return children.keys() == {"conv"} and is_convolution(children["conv"])
