"""The convolutional feature encoder of Wav2Vec2 and related models, channels last."""

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from .channels_last import ChannelsLastConvolution, is_convolution
from .first_convolution import (
    LEAST_CHANNELS_PER_SAMPLE,
    ChannelsFirstConvolution,
    GroupNormedConvolution,
    LayerNormedConvolution,
)
from .replacement import Replacement

_LAYER = ("conv", "layer_norm", "activation")


class ChannelsLastExtractor(nn.Module):
    """Waveforms to features; follows `Wav2Vec2FeatureEncoder` of transformers."""

    def __init__(self, layers: list[Any]) -> None:
        super().__init__()
        self.conv_layers = nn.ModuleList([_first(layers[0]), *(_other(layer) for layer in layers[1:])])

    def forward(self, input_values: Tensor) -> Tensor:
        """Turn waveforms [batch, samples] into [batch, channels, frames]: transposed, as transformers has it."""
        features = input_values
        for layer in self.conv_layers:
            features = layer(features)
        return features.transpose(1, 2)


def channels_last_extractor(module: nn.Module) -> Replacement | None:
    """Return the replacement of `module`; None if it is not such an encoder."""
    layers = list(getattr(module, "conv_layers", ()))
    if not layers or not all(_is_layer(layer) for layer in layers):
        return None
    first, *others = (getattr(layer, "layer_norm", None) for layer in layers)
    if layers[0].conv.in_channels != 1 or not (_is_layer_norm(first) or _is_norm_over_time(first)):
        return None
    if not all(norm is None or _is_layer_norm(norm) for norm in others):
        return None
    samples = 2
    for layer in reversed(layers):
        samples = (samples - 1) * layer.conv.stride[0] + layer.conv.kernel_size[0]
    return Replacement(ChannelsLastExtractor(layers), example=torch.randn(2, samples))


def _first(layer: Any) -> nn.Sequential:
    conv: nn.Module
    if layer.conv.out_channels < LEAST_CHANNELS_PER_SAMPLE * layer.conv.kernel_size[0]:
        conv = ChannelsFirstConvolution(layer.conv, layer.layer_norm)
    elif isinstance(layer.layer_norm, nn.LayerNorm):
        conv = LayerNormedConvolution(layer.conv, layer.layer_norm)
    else:
        conv = GroupNormedConvolution(layer.conv, layer.layer_norm)
    return nn.Sequential(OrderedDict(conv=conv, activation=layer.activation))


def _other(layer: Any) -> nn.Sequential:
    parts = dict(layer.named_children()) | {"conv": ChannelsLastConvolution(layer.conv)}
    return nn.Sequential(OrderedDict((name, parts[name]) for name in _LAYER if name in parts))


def _is_layer(layer: nn.Module) -> bool:
    children = dict(layer.named_children())
    return (
        children.keys() <= set(_LAYER)
        and "activation" in children
        and is_convolution(children.get("conv", nn.Identity()))
    )


def _is_layer_norm(norm: nn.Module | None) -> bool:
    return isinstance(norm, nn.LayerNorm) and norm.bias is not None


def _is_norm_over_time(norm: nn.Module | None) -> bool:
    return isinstance(norm, nn.GroupNorm) and norm.affine and norm.num_groups == norm.num_channels
