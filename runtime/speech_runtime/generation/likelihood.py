"""How likely given tokens are: the loss of labels, and log-probabilities of whole texts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import GenerationError
from .candidates import log_softmax
from .decoder import CachedDecoder
from .prompts import check_tokens
from .state import Tokens

IGNORED = -100
"""A label that does not count."""

_LOGITS_AT_ONCE = 2**26
"""Numbers, 256 MiB of them."""


@dataclass(frozen=True)
class ForwardOutput:
    """What the decoder expects after each token: logits float32 [batch, tokens, vocabulary]; the loss of labels."""

    logits: NDArray[np.float32]
    loss: float | None = None


def decoder_input_ids(labels: ArrayLike, start: Sequence[int], fill: int, vocab_size: int) -> tuple[Tokens, Tokens]:
    """Labels int64 [batch, tokens] and what the decoder is given to say them: shifted right, behind the start token.

    As `shift_tokens_right` of transformers: labels of -100 do not count, and are `fill` as an input.
    """
    given = np.asarray(labels)
    checked = check_tokens(np.where(given == IGNORED, fill, given), len(start), vocab_size)
    inputs = np.concatenate([np.array(start, dtype=np.int64)[:, None], checked[:, :-1]], axis=1)
    return np.where(given == IGNORED, IGNORED, checked), inputs


def cross_entropy(logits: NDArray[np.float32], labels: Tokens) -> float:
    """Mean negative log-probability of the labels that count; NaN where none does, as in torch."""
    counted = labels != IGNORED
    chosen = np.take_along_axis(log_softmax(logits), np.where(counted, labels, 0)[:, :, None], axis=2)[:, :, 0]
    return float(-chosen[counted].mean()) if counted.any() else float("nan")


def sequence_logprobs(
    decoder: CachedDecoder, sequences: Sequence[Sequence[int]], vocab_size: int
) -> NDArray[np.float32]:
    """Log-probabilities float32 [sequences] of all tokens but the first of each, for one utterance.

    All sequences go through the decoder at once, as beams that share the cross-attention cache.

    Args:
        decoder: of one utterance, nothing decoded yet.
        sequences: token ids, the start token included.
        vocab_size: of the decoder.

    Raises:
        GenerationError: a sequence without a token after the start token, or one whose score is no number.
    """
    lengths = np.array([len(sequence) for sequence in sequences])
    if (lengths < 2).any():
        raise GenerationError(f"sequence {int(lengths.argmin())} has no token to score")
    padded = np.zeros((len(sequences), int(lengths.max())), dtype=np.int64)
    for row, sequence in zip(padded, sequences, strict=True):
        row[: len(sequence)] = sequence
    counted = np.arange(1, padded.shape[1]) < lengths[:, None]
    at_once = max(1, _LOGITS_AT_ONCE // (padded.shape[1] * vocab_size))
    totals = []
    for begin in range(0, len(sequences), at_once):
        rows = slice(begin, begin + at_once)
        logprobs = log_softmax(decoder.logits_of_beams(padded[rows, :-1]))
        chosen = np.take_along_axis(logprobs, padded[rows, 1:, None], axis=2)[:, :, 0]
        totals.append(np.where(counted[rows], chosen, np.float32(0)).sum(axis=1, dtype=np.float32))
    scores = np.concatenate(totals)
    if (wrong := np.flatnonzero(np.isnan(scores))).size:
        raise GenerationError(
            f"the score of sequence {wrong[0]} is no number: the model's numbers have overflowed on this audio; leave "
            "it out, or export with --precision fp32 if the bundle has another one"
        )
    return scores
