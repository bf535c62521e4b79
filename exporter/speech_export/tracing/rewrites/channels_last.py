"""Convolutions over time as one matrix product, on hidden states [batch, time, channels].

ONNX Runtime's convolutions need the channels first, and float32. Its dynamic int8 kernels are matrix products, and so
is a convolution once its windows are gathered. The layers before and after it, mostly norms, need no transposition.
"""

import torch
from torch import Tensor, nn


class ChannelsLastConvolution(nn.Module):
    """An ungrouped `nn.Conv1d`, from [batch, time, channels in] to [batch, frames, channels out]."""

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
    """Return true if `ChannelsLastConvolution` supports `module`."""
    return (
        type(module) is nn.Conv1d
        and module.groups == 1
        and module.dilation == (1,)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def windows(hidden_states: Tensor, kernel: int, stride: int) -> Tensor:
    """Gather the windows of a kernel: [batch, time, channels] to [batch, frames, kernel · channels].

    One Gather of whole rows runs on all threads, which a Slice and a Concat do not, and on int8 as well as on float32.
    """
    if kernel == stride == 1:
        return hidden_states
    batch, time, channels = hidden_states.shape
    frames = (time - kernel) // stride + 1
    rows = torch.arange(frames).unsqueeze(1) * stride + torch.arange(kernel)
    return hidden_states.index_select(1, rows.flatten()).reshape(batch, frames, kernel * channels)
