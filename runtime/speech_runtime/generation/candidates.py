"""The candidates for the next token of every beam, and the settings that only ban or force some of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .config import GenerationConfig


@dataclass(frozen=True)
class Candidates:
    """Next tokens with their log-probabilities: ids int64 and logprobs float32, both [batch, beams, candidates]."""

    ids: NDArray[np.int64]
    logprobs: NDArray[np.float32]


Constraint = Callable[[Candidates, int], Candidates]
"""Candidates and the present length of the sequences, prompt included, to the candidates that are allowed."""


def constraints(config: GenerationConfig, prompt_length: int, min_length: int, max_length: int) -> list[Constraint]:
    """What `config` bans and forces, in the order of transformers' `_get_logits_processor`."""
    rules: list[Constraint] = []
    if config.eos_token_ids and min_length > 0:
        rules.append(_ban(config.eos_token_ids, lambda length: length < min_length))
    if config.forced_bos_token_id is not None:
        rules.append(_force((config.forced_bos_token_id,), at=1))
    if config.forced_eos_token_ids:
        rules.append(_force(config.forced_eos_token_ids, at=max_length - 1))
    if config.suppress_tokens:
        rules.append(_ban(config.suppress_tokens, lambda _: True))
    if config.begin_suppress_tokens:
        begin = prompt_length + (prompt_length == 1 and config.forced_bos_token_id is not None)
        rules.append(_ban(config.begin_suppress_tokens, lambda length: length == begin))
    return rules


def most_banned(config: GenerationConfig) -> int:
    """How many candidates of one beam `constraints` may take away at most."""
    banned = {*config.eos_token_ids, *(config.suppress_tokens or ()), *(config.begin_suppress_tokens or ())}
    return len(banned)


def _ban(tokens: Sequence[int], when: Callable[[int], bool]) -> Constraint:
    banned = np.array(tokens)

    def apply(candidates: Candidates, length: int) -> Candidates:
        if not when(length):
            return candidates
        lowest = np.float32(-np.inf)
        return Candidates(candidates.ids, np.where(np.isin(candidates.ids, banned), lowest, candidates.logprobs))

    return apply


def _force(tokens: Sequence[int], at: int) -> Constraint:
    forced = np.array(tokens, dtype=np.int64)

    def apply(candidates: Candidates, length: int) -> Candidates:
        if length != at:
            return candidates
        shape = (*candidates.ids.shape[:2], forced.size)
        return Candidates(np.broadcast_to(forced, shape), np.zeros(shape, dtype=np.float32))

    return apply
