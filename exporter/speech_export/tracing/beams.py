"""Beams of a traced decoder: a dimension of its self-attention cache, folded into the queries of its cross-attention.

transformers' cache has one row for each beam of each utterance. In that shape the whole self-attention cache would
be copied twice a step: from the shape of the graph's input, and into the shape of its output.

transformers also requires as many keys as queries, so its own search repeats the cross-attention cache for every beam.
Here a cross-attention layer gets [batch, beams × tokens, width] instead, and its cache stays
[batch, heads, frames, head_dim].
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicLayer

_CROSS_ATTENTION = frozenset({"crossattention", "cross_attention", "cross_attn", "encoder_attn"})
"""Names of the cross-attention of a decoder layer in transformers."""


def cross_attentions(decoder: nn.Module) -> list[nn.Module]:
    """Return the cross-attention of every layer of `decoder`; none if its family names it otherwise."""
    return [module for name, module in decoder.named_modules() if name.rpartition(".")[2] in _CROSS_ATTENTION]


@contextmanager
def folded(cross_attentions: Iterable[nn.Module], batch: int, beams: int) -> Iterator[None]:
    """Within this context, `cross_attentions` treat the beams of an utterance as more of its tokens."""
    hooks = []
    for module in cross_attentions:
        hooks.append(module.register_forward_pre_hook(partial(_fold, batch, beams), with_kwargs=True))
        hooks.append(module.register_forward_hook(partial(_unfold, batch, beams)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def repeated(state: Tensor, beams: int) -> Tensor:
    """Repeat a state [batch, …] for every beam, [batch × beams, …]; return the state itself for one beam."""
    return state if isinstance(beams, int) and beams == 1 else state.repeat_interleave(beams, 0)


def _fold(
    batch: int, beams: int, _: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    def fold(hidden_states: Tensor) -> Tensor:
        return hidden_states.view(batch, beams * hidden_states.shape[1], hidden_states.shape[2])

    if "hidden_states" in keywords:
        return arguments, {**keywords, "hidden_states": fold(keywords["hidden_states"])}
    return (fold(arguments[0]), *arguments[1:]), keywords


def _unfold(batch: int, beams: int, _: nn.Module, __: tuple[Any, ...], output: tuple[Tensor, ...]) -> tuple[Any, ...]:
    hidden_states = output[0]
    tokens, width = hidden_states.shape[1] // beams, hidden_states.shape[2]
    return (hidden_states.view(batch * beams, tokens, width), *output[1:])


class BeamLayer(DynamicLayer):  # type: ignore[misc]
    """Self-attention cache of one decoder layer, with the beams as a dimension of their own.

    Attributes:
        present: Keys and values [batch, beams, heads, past, head_dim]; after an update [..., past + tokens, head_dim].
    """

    def __init__(self, past: tuple[Tensor, Tensor], beam_idx: Tensor) -> None:
        """Select the past of each beam.

        Args:
            past: Keys and values, each [batch, past_beams, heads, past, head_dim].
            beam_idx: Index of the past beam that each beam continues, int64 [batch, beams].
        """
        super().__init__()
        self._batch, self._beams = beam_idx.shape
        utterances = torch.arange(self._batch).unsqueeze(1)
        self.present = past[0][utterances, beam_idx], past[1][utterances, beam_idx]
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Append states [batch × beams, heads, tokens, head_dim]; return the whole cache in that shape."""
        new = (states.view(self._batch, self._beams, *states.shape[1:]) for states in (key_states, value_states))
        key, value = (torch.cat(pair, dim=3) for pair in zip(self.present, new, strict=True))
        self.present = key, value
        self.keys, self.values = key.flatten(0, 1), value.flatten(0, 1)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Return the number of cached tokens."""
        return self.present[0].shape[3]
