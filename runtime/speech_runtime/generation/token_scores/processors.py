"""Processors: settings that change scores by the tokens so far: repetitions, bans and lengths.

Each follows a class of `transformers.generation.logits_process`. The last axis is the whole vocabulary: token ids are
positions on it. `GenerationConfig` checks that the settings are in range.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ...errors import GenerationError
from .maths import LogitsProcessor, Scores, Sequences, stable_log_softmax


def repetition_penalty(penalty: float) -> LogitsProcessor:
    """Divide positive and multiply negative scores of tokens that occurred (`RepetitionPenaltyLogitsProcessor`).

    The penalty applies once, however often a token occurred. Tokens outside the vocabulary are ignored.
    """
    factor = np.float32(penalty)

    def apply(sequences: Sequences, scores: Scores) -> Scores:
        flat = scores.reshape(-1, scores.shape[-1]).copy()
        occurred = _within_vocabulary(sequences, scores, np.ones(sequences.shape, dtype=bool))
        old = flat[occurred]
        with np.errstate(over="ignore"):
            flat[occurred] = np.where(old < 0, old * factor, old / factor)
        return flat.reshape(scores.shape)

    return apply


def no_repeat_ngram(size: int) -> LogitsProcessor:
    """Ban tokens that would repeat a sequence of `size` tokens (`NoRepeatNGramLogitsProcessor`)."""

    def apply(sequences: Sequences, scores: Scores) -> Scores:
        length = sequences.shape[-1]
        if length < size:
            return scores
        windows = sliding_window_view(sequences, size, axis=-1)
        begun = (windows[..., :-1] == sequences[..., None, length + 1 - size :]).all(axis=-1)
        if not begun.any():
            return scores
        flat = scores.reshape(-1, scores.shape[-1]).copy()
        flat[_within_vocabulary(windows[..., -1], scores, begun)] = -np.inf
        return flat.reshape(scores.shape)

    return apply


def sequence_bias(bias: Mapping[tuple[int, ...], float]) -> LogitsProcessor:
    """Add to the scores of tokens that complete a sequence (`SequenceBiasLogitsProcessor`).

    The biases of all sequences that a token completes add up, that of the token alone included. Sequences longer than
    the tokens so far are not completed.

    Raises:
        GenerationError: A sequence is empty, or a token is negative; when applied, a token is outside the vocabulary.
    """
    _check_tokens(bias)
    tokens, places = np.unique([sequence[-1] for sequence in bias], return_inverse=True)
    alone = np.zeros(len(tokens), dtype=np.float32)
    by_length: dict[int, list[tuple[tuple[int, ...], int, float]]] = {}
    for (sequence, value), place in zip(bias.items(), places, strict=True):
        if len(sequence) == 1:
            alone[place] = value
        else:
            by_length.setdefault(len(sequence) - 1, []).append((sequence[:-1], int(place), value))
    groups = [tuple(np.array(column) for column in zip(*group, strict=True)) for group in by_length.values()]
    known = sorted(set(chain.from_iterable(bias)))

    def apply(sequences: Sequences, scores: Scores) -> Scores:
        _check_within(known, scores, "sequence_bias and bad_words_ids")
        added = np.broadcast_to(alone, (*scores.shape[:-1], len(tokens))).copy()
        biased = scores.copy()
        with np.errstate(invalid="ignore", over="ignore"):  # inf - inf is NaN, as in transformers
            for beginnings, completions, values in groups:
                length = beginnings.shape[1]
                if length <= sequences.shape[-1]:
                    begun = (sequences[..., None, -length:] == beginnings).all(axis=-1)
                    completed: tuple[Any, ...] = (..., completions)
                    np.add.at(added, completed, np.where(begun, values, 0.0).astype(np.float32))
            biased[..., tokens] += added
        return biased

    return apply


def bad_words(sequences: Collection[Sequence[int]], eos_token_ids: Collection[int]) -> LogitsProcessor:
    """Ban tokens that would complete one of `sequences` (`NoBadWordsLogitsProcessor`).

    End tokens on their own are not banned, and empty sequences are ignored.

    Raises:
        GenerationError: As in `sequence_bias`.
    """
    ends = {(token,) for token in eos_token_ids}
    return sequence_bias({words: -np.inf for words in map(tuple, sequences) if words and words not in ends})


def exponential_decay(start: int, factor: float, eos_token_ids: Collection[int], prompt_length: int) -> LogitsProcessor:
    """Raise the scores of end tokens with every token (`ExponentialDecayLengthPenalty`).

    From the `start`-th new token on, n tokens later, a score rises by |score| · (`factor` ** n - 1).

    Raises:
        GenerationError: When applied, an end token is outside the vocabulary.
    """
    ends = np.unique(np.array([*eos_token_ids], dtype=np.int64))

    def apply(sequences: Sequences, scores: Scores) -> Scores:
        beyond = sequences.shape[-1] - prompt_length - start
        if beyond <= 0:
            return scores
        _check_within(ends, scores, "eos_token_id")
        old, raised = scores[..., ends], scores.copy()
        with np.errstate(invalid="ignore", over="ignore"):
            growth = np.float32(np.float64(factor) ** beyond - 1)
            raised[..., ends] = old + np.where(np.isfinite(old), np.abs(old) * growth, np.float32(0))
        return raised

    return apply


def remove_invalid() -> LogitsProcessor:
    """Replace NaN by 0, and ±inf by the largest and smallest float32 (`InfNanRemoveLogitsProcessor`)."""
    limits = np.finfo(np.float32)

    def apply(_: Sequences, scores: Scores) -> Scores:
        valid: Scores = np.nan_to_num(scores, nan=0.0, posinf=float(limits.max), neginf=float(limits.min))
        return valid

    return apply


def only(possible: NDArray[np.bool_]) -> LogitsProcessor:
    """Ban all tokens but those that are marked in `possible`, bool [vocabulary]."""
    return lambda _, scores: np.where(possible, scores, np.float32(-np.inf))


def renormalize() -> LogitsProcessor:
    """Turn scores into log-probabilities (`LogitNormalization`)."""
    return lambda _, scores: stable_log_softmax(scores)


def _within_vocabulary(
    tokens: NDArray[np.int64], scores: Scores, chosen: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows and columns in `scores` [rows, vocabulary] of the `tokens` [batch, beams, n] that are `chosen`."""
    flat = tokens.reshape(-1, tokens.shape[-1])
    rows, places = np.nonzero(chosen.reshape(flat.shape) & (flat >= 0) & (flat < scores.shape[-1]))
    return rows, flat[rows, places]


def _check_tokens(bias: Iterable[tuple[int, ...]]) -> None:
    wrong = [list(sequence) for sequence in bias if not sequence or min(sequence) < 0]
    if wrong:
        raise GenerationError(
            f"sequence_bias and bad_words_ids hold {wrong}; give one or more token ids of 0 and above"
        )


def _check_within(tokens: Iterable[int], scores: Scores, setting: str) -> None:
    outside = [int(token) for token in tokens if not 0 <= token < scores.shape[-1]]
    if outside:
        raise GenerationError(
            f"{setting} has tokens that the model's vocabulary of {scores.shape[-1]} does not: {outside}; remove them"
        )
