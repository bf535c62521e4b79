"""How likely given tokens are: the loss of labels, and log-probabilities of whole texts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..dataclass_json import shown
from ..errors import GenerationError
from .decoding.decoder import CachedDecoder
from .prompts import check_tokens, token_array
from .scores.maths import log_softmax
from .search.base import Tokens

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

    Raises:
        GenerationError: labels are of another shape or dtype, or there are no such tokens.
    """
    given = token_array(labels, len(start), "labels", f"; fill rows of several lengths up with {IGNORED}")
    if given.dtype.kind not in "iu":
        check_tokens(given, len(start), vocab_size, "labels")
    checked = check_tokens(np.where(given == IGNORED, fill, given), len(start), vocab_size, "labels")
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
        GenerationError: a sequence has no token after the start token, more tokens than the decoder takes, or one that
            is not in its vocabulary; or the model's answer is not a number. Names the sequence.
    """
    lengths = np.array([len(sequence) for sequence in sequences])
    if (lengths < 2).any():
        raise GenerationError(f"text {int(lengths.argmin())} has no token to score")
    decoder.check_positions(int(lengths.max()) - 1, f"text {int(lengths.argmax())}")
    _check_vocabulary(sequences, vocab_size)
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


def checked_texts(texts: Iterable[str]) -> list[str]:
    """The texts that are to be scored.

    Raises:
        GenerationError: they are one text and no list of them, or one of them is no text.
    """
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
        raise GenerationError(f"texts is {shown(texts)}, it must be a list of texts; give one text as [text]")
    found = list(texts)
    for row, text in enumerate(found):
        if not isinstance(text, str):
            raise GenerationError(f"texts[{row}] is {shown(text)}, it must be a text")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise GenerationError(
                f"texts[{row}] is {text[:120]!a}, which has half of a surrogate pair; it must be Unicode text"
            ) from None
    return [str(text) for text in found]


def _check_vocabulary(sequences: Sequence[Sequence[int]], vocab_size: int) -> None:
    for row, sequence in enumerate(sequences):
        if unknown := sorted({token for token in sequence if not 0 <= token < vocab_size}):
            raise GenerationError(
                f"text {row} has the tokens {unknown}, and the decoder knows 0 … {vocab_size - 1}: the bundle's "
                "tokenizer.json has more words than its model; leave them out of the text"
            )
