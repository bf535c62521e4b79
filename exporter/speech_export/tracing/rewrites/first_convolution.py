"""The first convolution, over the samples, and its norm as one small matrix product.

It computes 512 channels for every 10 samples. At 16 kHz this is the largest tensor of the encoder, and each pass over
it takes as long as a layer of the transformer. Each channel is linear in its window, so mean and variance, over
channels or over time, follow from the window alone, and the norm becomes a part of the weights.
"""

import torch
from torch import Tensor, nn

LEAST_CHANNELS_PER_SAMPLE = 2
"""Minimum number of channels per sample of a window for the rewrite. With fewer, the windows are larger than the
channels: 96 channels of 160 samples take 0.43 ms as they are and 1.3 ms rewritten; 512 of 10 take 6.7 and 1.3 ms."""


class ChannelsFirstConvolution(nn.Module):
    """Convolution and norm as they are, for few channels with long windows."""

    def __init__(self, conv: nn.Conv1d, norm: nn.LayerNorm | nn.GroupNorm) -> None:
        super().__init__()
        self.conv, self.norm = conv, norm

    def forward(self, waveform: Tensor) -> Tensor:
        """Convolve and normalise [batch, samples] to [batch, frames, channels]."""
        channels: Tensor = self.conv(waveform.unsqueeze(1))
        if isinstance(self.norm, nn.GroupNorm):
            channels = self.norm(channels)
        features = channels.transpose(1, 2)
        return self.norm(features) if isinstance(self.norm, nn.LayerNorm) else features


class LayerNormedConvolution(nn.Module):
    """`nn.Conv1d` over the samples, then `nn.LayerNorm` over its channels.

    The weight minus its mean over the channels is Q·R, with Q orthonormal. So the norm of R·window, 11 numbers, equals
    the norm of all channels, and is as exact.
    """

    def __init__(self, conv: nn.Conv1d, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.kernel, self.eps = conv.kernel_size[0], norm.eps
        bias = torch.zeros(conv.out_channels, 1) if conv.bias is None else conv.bias.detach().unsqueeze(1)
        weight = torch.cat([conv.weight.detach()[:, 0], bias], dim=1).double()
        weight = weight - weight.mean(dim=0)
        self.seen = _windows(conv, torch.linalg.qr(weight).R / conv.out_channels**0.5)
        norm_weight, norm_bias = norm.weight.detach().unsqueeze(1), norm.bias.detach().unsqueeze(1)
        scaled = torch.cat([weight * norm_weight, norm_bias], dim=1)
        # 3-D so that the int8 pass skips it; otherwise the waveform would be quantised. 12 columns cost little anyway.
        self.weight = nn.Parameter(scaled.T.unsqueeze(0).float().contiguous(), requires_grad=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Convolve and normalise [batch, samples] to [batch, frames, channels]."""
        seen = self.seen(waveform.unsqueeze(1))
        variance = seen[:, self.kernel :].square().sum(dim=1, keepdim=True)
        scale = torch.rsqrt(variance + self.eps)
        terms = torch.cat([seen[:, : self.kernel] * scale, scale, torch.ones_like(scale)], dim=1)
        return torch.matmul(terms.transpose(1, 2), self.weight)


class GroupNormedConvolution(nn.Module):
    """`nn.Conv1d` over the samples, then `nn.GroupNorm` of every channel over time.

    The variance of a channel is wᵀ·C·w, where C is the covariance of the windows. It is computed in float64, because
    speech has little energy at the frequencies of some channels.
    """

    def __init__(self, conv: nn.Conv1d, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.eps = norm.eps
        self.seen = _windows(conv)
        self.kernels = nn.Parameter(conv.weight.detach()[:, 0].double(), requires_grad=False)
        self.norm_weight = nn.Parameter(norm.weight.detach().double(), requires_grad=False)
        self.norm_bias = norm.bias

    def forward(self, waveform: Tensor) -> Tensor:
        """Convolve and normalise [batch, samples] to [batch, frames, channels]; a bias would cancel out."""
        seen = self.seen(waveform.unsqueeze(1)).double()
        seen = seen - seen.mean(dim=2, keepdim=True)
        covariance = torch.matmul(seen, seen.transpose(1, 2)) / seen.shape[2]
        variance = (torch.matmul(self.kernels, covariance) * self.kernels).sum(dim=2)
        weight = ((self.norm_weight * torch.rsqrt(variance + self.eps)).unsqueeze(2) * self.kernels).float()
        bias = self.norm_bias.expand(waveform.shape[0], 1, -1)
        terms = torch.cat([seen, torch.ones_like(seen[:, :1])], dim=1).float()
        return torch.matmul(terms.transpose(1, 2), torch.cat([weight.transpose(1, 2), bias], dim=1))


def _windows(conv: nn.Conv1d, affine: Tensor | None = None) -> nn.Conv1d:
    """Return a convolution whose channels are the samples of a window, then `affine` of those samples and 1."""
    samples = torch.eye(conv.kernel_size[0])
    weight, bias = (samples, None) if affine is None else (torch.cat([samples, affine[:, :-1].float()]), affine[:, -1])
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    windows = nn.Conv1d(1, len(weight), kernel, stride, bias=bias is not None).requires_grad_(False)
    windows.weight.copy_(weight.unsqueeze(1))
    if windows.bias is not None and bias is not None:
        windows.bias.copy_(torch.cat([torch.zeros(len(samples)), bias.float()]))
    return windows
