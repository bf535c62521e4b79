"""Convolutions over time as one matrix product: hidden states stay [batch, time, channels].

ONNX Runtime convolves channels first, in float32 only. Its dynamic int8 kernels are matrix products, and so is a
convolution whose windows lie side by side; what comes before and after it, norms above all, need not be transposed.
"""

import torch
from torch import Tensor, nn


class ChannelsLastConvolution(nn.Module):
    """An ungrouped `nn.Conv1d`, of [batch, time, channels in] to [batch, frames, channels out]."""

    def __init__(self, conv: nn.Conv1d) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = conv.kernel_size[0], conv.stride[0], int(conv.padding[0])
        weight = conv.weight.detach().transpose(1, 2).flatten(1)
        self.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
        self.bias = conv.bias

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Convolve [batch, time, channels in]."""
        if self.padding:
            hidden_states = nn.functional.pad(hidden_states, (0, 0, self.padding, self.padding))
        return nn.functional.linear(windows(hidden_states, self.kernel, self.stride), self.weight, self.bias)


def is_convolution(module: nn.Module) -> bool:
    """Return whether `ChannelsLastConvolution` supports `module`."""
    return (
        type(module) is nn.Conv1d
        and module.groups == 1
        and module.dilation == (1,)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def windows(hidden_states: Tensor, kernel: int, stride: int) -> Tensor:
    """Lay the windows of a kernel side by side: [batch, time, channels] to [batch, frames, kernel · channels].

    One Gather of whole rows: it runs on all threads, which a Slice and a Concat do not, and on int8 as on float32.
    """
    if kernel == stride == 1:
        return hidden_states
    batch, time, channels = hidden_states.shape
    frames = (time - kernel) // stride + 1
    rows = torch.arange(frames).unsqueeze(1) * stride + torch.arange(kernel)
    return hidden_states.index_select(1, rows.flatten()).reshape(batch, frames, kernel * channels)
