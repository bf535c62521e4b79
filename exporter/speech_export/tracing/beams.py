"""One cross-attention cache for all beams: they are folded into the query axis of every cross-attention layer.

transformers wants as many keys as queries, so a search of its own repeats the cross-attention cache for every beam.
Here a layer is given [batch, beams × tokens, width] instead, and the cache stays [batch, heads, frames, head_dim].
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

_CROSS_ATTENTION = frozenset({"crossattention", "cross_attn", "encoder_attn"})
"""What transformers calls the cross-attention of a decoder layer."""


def cross_attentions(decoder: nn.Module) -> list[nn.Module]:
    """The cross-attention of every layer of `decoder`; none where the family has a name of its own for it."""
    return [module for name, module in decoder.named_modules() if name.rpartition(".")[2] in _CROSS_ATTENTION]


@contextmanager
def folded(cross_attentions: Iterable[nn.Module], batch: int, beams: int) -> Iterator[None]:
    """Within this context `cross_attentions` take the beams of an utterance for more of its tokens."""
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
    """A state [batch, …] for every beam, [batch × beams, …]; the state itself where the beams share it."""
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
