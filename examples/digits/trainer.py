"""The part of training that each process does: losses, weight updates, and word error rates on the dev set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.distributed
from torch import nn
from transformers import Wav2Vec2Model

from alignment import AlignmentHead
from architecture import build_feature_extractor, build_model, build_tokenizer
from corpus import SAMPLE_RATE, Utterance
from scoring import transcribe, word_error_rate

_PEAK_LEARNING_RATE = 1.5e-3
_WARM_UP_STEPS = 100
_CONSTANT_SHARE = 0.4
_FINAL_LEARNING_RATE_SHARE = 0.02
_ALIGNMENT_EASES_AT = 0.7
_LARGEST_GRADIENT = 1.0


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, constant until 40 % of the steps, then along a cosine to 2 % of the peak."""
    warm_up = min(1.0, (step + 1) / _WARM_UP_STEPS)
    progress = max(0.0, (step / steps - _CONSTANT_SHARE) / (1 - _CONSTANT_SHARE))
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    share = _FINAL_LEARNING_RATE_SHARE + (1 - _FINAL_LEARNING_RATE_SHARE) * cosine
    return _PEAK_LEARNING_RATE * warm_up * share


def average_gradients(parts: nn.Module) -> None:
    """Replace each gradient by its mean over the processes, in one exchange.

    A parameter without a gradient (the ordinals of a batch of unknown spans) counts as zero.
    """
    parameters = list(parts.parameters())
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(flat)
    sizes = [parameter.numel() for parameter in parameters]
    flat /= torch.distributed.get_world_size()
    for parameter, mean in zip(parameters, torch.split(flat, sizes), strict=True):
        parameter.grad = mean.view_as(parameter)


class Trainer:
    """The model, the alignment head and the optimizer of one process."""

    def __init__(self, steps: int, seed: int) -> None:
        self.steps = steps
        self.feature_extractor = build_feature_extractor()
        self.tokenizer = build_tokenizer()
        self.model = build_model(seed)
        self.encoder = cast("Wav2Vec2Model", self.model.encoder)
        self.head = AlignmentHead(self.encoder.config.hidden_size)
        self.parts = nn.ModuleDict({"model": self.model, "head": self.head})
        self.optimizer = torch.optim.AdamW(self.parts.parameters(), lr=_PEAK_LEARNING_RATE, weight_decay=0.01)

    def losses(self, batch: Sequence[Utterance]) -> tuple[torch.Tensor, torch.Tensor]:
        """The model's own loss and the alignment loss, both scalars."""
        inputs = self.feature_extractor(
            [utterance.samples for utterance in batch],
            sampling_rate=SAMPLE_RATE,
            padding=True,
            return_tensors="pt",
        )
        texts = self.tokenizer([utterance.text for utterance in batch], padding=True, return_tensors="pt")
        labels = texts.input_ids.masked_fill(texts.attention_mask == 0, -100)
        mask = inputs.attention_mask.long()
        encoded = self.encoder(inputs.input_values, attention_mask=mask)
        transcription = self.model(
            input_values=inputs.input_values, attention_mask=mask, encoder_outputs=encoded, labels=labels
        ).loss
        frames = self.encoder._get_feat_extract_output_lengths(mask.sum(-1))
        return transcription, self.head(encoded.last_hidden_state, frames, batch)

    def step(self, number: int, batch: Sequence[Utterance]) -> tuple[float, float]:
        """Update the weights from one batch of each process; returns this process's two losses."""
        eased = number >= _ALIGNMENT_EASES_AT * self.steps
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(number, self.steps)
        self.optimizer.zero_grad()
        transcription, alignment = self.losses(batch)
        torch.autograd.backward(transcription + (0.5 if eased else 1.0) * alignment)
        average_gradients(self.parts)
        nn.utils.clip_grad_norm_(self.parts.parameters(), _LARGEST_GRADIENT)
        self.optimizer.step()
        return float(transcription.detach()), float(alignment.detach())

    def dev_error_rates(self, real: Sequence[Utterance], synthetic: Sequence[Utterance]) -> tuple[float, float]:
        """Greedy word error rates on joined recordings and on synthetic strings."""
        self.model.train(False)
        rates = [
            word_error_rate(
                [string.text for string in strings],
                transcribe(self.model, self.feature_extractor, self.tokenizer, [string.samples for string in strings]),
            )
            for strings in (real, synthetic)
        ]
        self.model.train()
        return rates[0], rates[1]
