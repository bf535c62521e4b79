"""Auxiliary training losses on the encoder, without which the decoder never learns where to look.

The head that computes them is used in training only and is not part of the checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from architecture import FRAME_STRIDE, RECEPTIVE_FIELD
from corpus import Utterance
from digit_strings import LONGEST_STRING

_IGNORED = -100
_BLANK = 10
_PAUSE = LONGEST_STRING


def ordinals(utterance: Utterance, frames: int) -> torch.Tensor:
    """Return the digit of the string (0 for the first) that each encoder frame lies in.

    int64 (frames,): 8 stands for a pause, -100 for a frame past the string or for spans nobody knows.
    """
    labels = torch.full((frames,), _IGNORED)
    if utterance.spans is None:
        return labels
    centres = torch.arange(frames) * FRAME_STRIDE + RECEPTIVE_FIELD // 2
    labels[centres < len(utterance.samples)] = _PAUSE
    for ordinal, (start, end) in enumerate(utterance.spans):
        labels[(centres >= start) & (centres < end)] = ordinal
    return labels


class AlignmentHead(nn.Module):
    """One linear layer that reads from each frame the digit said there, and how many came before it."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.digits = nn.Linear(hidden_size, _BLANK + 1)
        self.ordinals = nn.Linear(hidden_size, _PAUSE + 1)

    def forward(self, hidden: torch.Tensor, frames: torch.Tensor, batch: Sequence[Utterance]) -> torch.Tensor:
        """CTC over the digits plus cross-entropy over the ordinals, a scalar.

        `hidden` is float32 (batch, time, hidden size), `frames` int64 (batch,): the frames without padding.
        """
        said = torch.tensor([digit for utterance in batch for digit in utterance.digits])
        counts = torch.tensor([len(utterance.digits) for utterance in batch])
        scores = functional.log_softmax(self.digits(hidden), dim=-1).transpose(0, 1)
        ctc = functional.ctc_loss(scores, said, frames, counts, blank=_BLANK, zero_infinity=True)
        labels = torch.stack([ordinals(utterance, hidden.shape[1]) for utterance in batch])
        if bool((labels == _IGNORED).all()):
            return ctc
        return ctc + functional.cross_entropy(
            self.ordinals(hidden).flatten(0, 1), labels.flatten(), ignore_index=_IGNORED
        )
