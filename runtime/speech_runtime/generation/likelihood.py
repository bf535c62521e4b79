"""Scores of given tokens: the loss of labels, and the log-probabilities of whole texts."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..bundle.loading import Bundle, read_configuration
from ..bundle.manifest import CONFIG
from ..bundle.vocabulary import Vocabulary
from ..dataclass_json import shown
from ..errors import BundleError, GenerationError
from .config import GenerationConfig
from .decoding.decoder import CachedDecoder
from .output import NamedOutput
from .prompts import check_tokens, token_array
from .search.base import Tokens
from .token_scores.maths import log_softmax

IGNORED = -100
"""Label that does not count."""

_LOGITS_AT_ONCE = 2**26
"""Number of logits that are computed at once: 256 MiB of them."""

_LABEL_TOKENS = ("decoder_start_token_id", "pad_token_id")


@dataclass(frozen=True)
class ForwardOutput(NamedOutput):
    """Output of `forward`. `output["loss"]` is `output.loss`.

    Attributes:
        logits: Logits of the token after each given one, float32 [batch, tokens, vocabulary].
        loss: Mean negative log-probability of the labels; None without labels, NaN if all of them are ignored.
    """

    logits: NDArray[np.float32]
    loss: float | None = None


def wrong_label_tokens(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tokens for labels in a model's configuration that are not token ids, by their names."""
    return {name: token for name in _LABEL_TOKENS if (token := config.get(name)) is not None and type(token) is not int}


@dataclass(frozen=True)
class LabelTokens:
    """Tokens that turn labels into the decoder's input, as in transformers' `shift_tokens_right`.

    They come from config.json, which training reads; generation reads generation_config.json, and the two may differ.

    Attributes:
        start: Token before the first label; that of the generation settings if None.
        pad: Token that replaces labels of -100 as input; that of the generation settings if None.
    """

    start: int | None = None
    pad: int | None = None

    @classmethod
    def of(cls, bundle: Bundle) -> "LabelTokens":
        """Read the tokens from a bundle's config.json; both are None if there is no such file.

        Raises:
            BundleError: The file cannot be read, or one of them is not a token id.
        """
        if not bundle.has(CONFIG):
            return cls()
        path = bundle.path(CONFIG)
        found = read_configuration(path)
        for name, token in wrong_label_tokens(found).items():
            raise BundleError(f"{path}: {name} is {token!r}, it must be a token id; export the model again")
        return cls(*map(found.get, _LABEL_TOKENS))

    def resolved(self, config: GenerationConfig, batch: int, vocabulary: Vocabulary) -> tuple[tuple[int, ...], int]:
        """Return the start token of each utterance, and the token for labels of -100.

        Raises:
            GenerationError: There is no start token, or one of the two is outside the vocabulary.
        """
        start = config.start_token_ids(batch) if self.start is None else (self.start,) * batch
        pad = max(config.fill_token_id, 0) if self.pad is None else self.pad
        if outside := vocabulary.unknown((*start, pad)):
            raise GenerationError(
                f"labels start from and are padded with tokens of {CONFIG}, but {outside[0]} is not in the decoder's "
                f"0 … {vocabulary.size - 1}; correct decoder_start_token_id and pad_token_id in the checkpoint's "
                f"{CONFIG} and export it again, or give decoder_input_ids"
            )
        return start, pad


def decoder_input_ids(
    labels: ArrayLike, start: Sequence[int], fill: int, vocabulary: Vocabulary
) -> tuple[Tokens, Tokens]:
    """Return labels int64 [batch, tokens], and the decoder's input for them: the start token, then all but the last.

    This follows transformers' `shift_tokens_right`: labels of -100 do not count, and `fill` replaces them in the input.

    Raises:
        GenerationError: The labels have another shape or dtype, or are not in the vocabulary.
    """
    given = token_array(labels, len(start), "labels", f"; fill rows of several lengths up with {IGNORED}")
    if given.dtype.kind not in "iu":
        check_tokens(given, len(start), vocabulary, "labels")
    checked = check_tokens(np.where(given == IGNORED, fill, given), len(start), vocabulary, "labels")
    inputs = np.concatenate([np.array(start, dtype=np.int64)[:, None], checked[:, :-1]], axis=1)
    return np.where(given == IGNORED, IGNORED, checked), inputs


def cross_entropy(logits: NDArray[np.float32], labels: Tokens) -> float:
    """Return the mean negative log-probability of the labels that count; NaN if none does, as in torch."""
    counted = labels != IGNORED
    chosen = np.take_along_axis(log_softmax(logits), np.where(counted, labels, 0)[:, :, None], axis=2)[:, :, 0]
    return float(-chosen[counted].mean()) if counted.any() else float("nan")


def sequence_logprobs(
    decoder: CachedDecoder,
    sequences: Sequence[Sequence[int]],
    vocabulary: Vocabulary,
    prompt_length: int = 1,
    name: Callable[[int], str] = str,
) -> NDArray[np.float32]:
    """Return the log-probability of each sequence after its prompt, float32 [sequences].

    The sequences go through the decoder together, as beams of one utterance that share the cross-attention cache.

    Args:
        decoder: Decoder of one utterance that has not decoded anything yet.
        sequences: Token ids of each sequence, the prompt included.
        vocabulary: Vocabulary of the decoder.
        prompt_length: Number of tokens of the prompt, the start token included.
        name: Function that returns the name of a token for errors.

    Raises:
        GenerationError: A sequence, which is named, has no token after the prompt, more tokens than the decoder
            takes, or a token that is not in its vocabulary or left out of the bundle; or its score is NaN.
    """
    lengths = np.array([len(sequence) for sequence in sequences])
    if (lengths <= prompt_length).any():
        raise GenerationError(f"text {int(lengths.argmin())} has no token to score")
    decoder.check_positions(int(lengths.max()) - 1, f"text {int(lengths.argmax())}")
    _check_vocabulary(sequences, vocabulary, name)
    padded = np.zeros((len(sequences), int(lengths.max())), dtype=np.int64)
    for row, sequence in zip(padded, sequences, strict=True):
        row[: len(sequence)] = sequence
    places = np.arange(1, padded.shape[1])
    counted = (places >= prompt_length) & (places < lengths[:, None])
    at_once = max(1, _LOGITS_AT_ONCE // (padded.shape[1] * vocabulary.size))
    totals = []
    for begin in range(0, len(sequences), at_once):
        rows = slice(begin, begin + at_once)
        logprobs = log_softmax(decoder.logits_of_beams(padded[rows, :-1]))
        chosen = np.take_along_axis(logprobs, padded[rows, 1:, None], axis=2)[:, :, 0]
        totals.append(np.where(counted[rows], chosen, np.float32(0)).sum(axis=1, dtype=np.float32))
    scores = np.concatenate(totals)
    if (wrong := np.flatnonzero(np.isnan(scores))).size:
        raise GenerationError(
            f"the score of text {wrong[0]} is not a number: the model's numbers have overflowed on this audio; leave "
            "it out, or export with --precision fp32 if the bundle has another precision"
        )
    return scores


def checked_texts(texts: Iterable[str]) -> list[str]:
    """Return the texts to score as a list of strings.

    Raises:
        GenerationError: `texts` is one text instead of a list, or an item of it is not Unicode text.
    """
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
        raise GenerationError(f"texts is {shown(texts)}, it must be a list of texts; give one text as [text]")
    found = list(texts)
    for row, text in enumerate(found):
        if not isinstance(text, str):
            raise GenerationError(f"texts[{row}] is {shown(text)}, it must be a string")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise GenerationError(
                f"texts[{row}] is {text[:120]!a}, which has half of a surrogate pair; it must be Unicode text"
            ) from None
    return [str(text) for text in found]


def _check_vocabulary(sequences: Sequence[Sequence[int]], vocabulary: Vocabulary, name: Callable[[int], str]) -> None:
    for row, sequence in enumerate(sequences):
        if unknown := vocabulary.unknown(sequence):
            raise GenerationError(
                f"text {row} has the tokens {unknown}, but the decoder's tokens are 0 … {vocabulary.size - 1}: the "
                "bundle's tokenizer.json has tokens that its model lacks; leave their words out of the text"
            )
        if (why := vocabulary.why_left_out(sequence, name)) is not None:
            raise GenerationError(f"text {row} has the tokens {why}")
