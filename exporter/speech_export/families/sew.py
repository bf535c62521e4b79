"""SEW and SEW-D pool the frames, upsample them again, and append zero frames if their number was not divisible."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from .registry import EncoderFamily, register_encoder


@contextmanager
def always_padded(encoder: PreTrainedModel) -> Iterator[None]:
    """Within this context, zero frames are always appended, and surplus ones cut off.

    transformers branches on `frames % squeeze_factor`, and tracing keeps the branch of its one example: 199 frames
    would silently become 198. The mask is pooled by a maximum of rows: ONNX Runtime has no kernel on a GPU for MaxPool
    of opset 22 (1.30).
    """
    transformer, squeeze = encoder.encoder, int(encoder.config.squeeze_factor)
    frames: list[Any] = []

    def remember(_: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        hidden_states = arguments[0] if arguments else keywords["hidden_states"]
        frames[:] = [hidden_states.shape[1]]

    def pad(_: nn.Module, __: tuple[Any, ...], hidden_states: Tensor) -> Tensor:
        zeros = torch.zeros_like(hidden_states[:, :1]).expand(-1, squeeze - 1, -1)
        return torch.cat([hidden_states, zeros], dim=1)[:, : frames[0]]

    hooks = [
        transformer.register_forward_pre_hook(remember, with_kwargs=True),
        transformer.upsample.register_forward_hook(pad),
    ]
    try:
        with patch.object(nn.functional, "max_pool1d", largest_of_each):
            yield
    finally:
        for hook in hooks:
            hook.remove()


def largest_of_each(values: Tensor, kernel_size: int, stride: int) -> Tensor:
    """Return the maxima [batch, 1, windows] of windows of `kernel_size` values of [batch, 1, length], side by side."""
    windows = values.shape[-1] // stride
    return values[..., : windows * stride].reshape(*values.shape[:-1], windows, kernel_size).amax(-1)


register_encoder(EncoderFamily(rewrite=always_padded), "sew", "sew-d")
