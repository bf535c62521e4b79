"""What the torch model says of a batch: the tokens of its searches, and the log-probabilities along them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import SpeechEncoderDecoderModel

from speech_runtime.generation.config import GenerationSettings

from .evaluation_audio import AudioSet, Batch
from .oracle import Oracle

BEAMS = 4
_CANDIDATES = 64


@dataclass(frozen=True)
class Expectation:
    """One search of the torch model on one batch.

    Attributes:
        batch: its input.
        search: its settings.
        tokens: int64 [batch, length].
        logprobs: float32 [batch, length, words] of what follows each token.
        words: which they are, int64 of the same shape, best first; None where it is the whole vocabulary.
        spoken: bool [batch, length], false where a sequence has ended.
        frames: int64 [batch], those of the encoder that hold audio of each clip; None where it takes no mask.
    """

    batch: Batch
    search: GenerationSettings
    tokens: NDArray[np.int64]
    logprobs: Tensor
    words: Tensor | None
    spoken: NDArray[np.bool_]
    frames: NDArray[np.int64] | None

    @property
    def beams(self) -> int:
        """Of the search."""
        return self.search["num_beams"]

    @property
    def scores(self) -> Tensor:
        """Mean log-probability of each sequence's new tokens, float32 [batch], out of those of the whole vocabulary.

        A search that takes the past of another beam for its own has other scores, even where its tokens are the same.
        """
        spoken = torch.from_numpy(self.spoken[:, :-1])
        following = torch.from_numpy(self.tokens[:, 1:, None])
        found = self.logprobs[:, :-1].gather(-1, following).squeeze(-1).where(spoken, 0)
        return found.sum(dim=-1) / spoken.sum(dim=-1)


def expectations(
    model: SpeechEncoderDecoderModel, audio: AudioSet, new_tokens: int, *, whole: bool
) -> Iterator[Expectation]:
    """Greedy and beam search on every batch.

    Args:
        model: the torch model.
        audio: batches.
        new_tokens: the most that a search may add.
        whole: keep the log-probabilities of the whole vocabulary, not only of the best words.
    """
    end = model.generation_config.eos_token_id
    ends = [] if end is None else list(end) if isinstance(end, (list, tuple)) else [end]
    for batch in audio.batches:
        oracle = Oracle(model, batch.inputs, batch.attention_mask)
        mask = oracle.frame_mask(batch.attention_mask.shape[1])  # of frames enough for any encoder
        frames = None if mask is None else mask.sum(dim=-1).to(torch.int64).numpy()
        for beams in (1, BEAMS):
            search: GenerationSettings = {"num_beams": beams, "num_return_sequences": 1, "max_new_tokens": new_tokens}
            tokens = oracle.generate(**search)
            logprobs, words = oracle.logprobs(tokens), None
            if not whole:
                logprobs, words = best_words(logprobs)
            yield Expectation(batch, search, tokens, logprobs, words, _spoken(tokens, ends), frames)


def best_words(logprobs: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of [..., vocabulary], best first, and which words they are: as many as a search may look at."""
    best = torch.topk(logprobs, min(_CANDIDATES, logprobs.shape[-1]), dim=-1)
    return best.values, best.indices


def _spoken(tokens: NDArray[np.int64], ends: list[int]) -> NDArray[np.bool_]:
    """Where a token is still to come: before any end token; a start token may be one and does not count."""
    ended = np.isin(tokens, ends)
    ended[:, 0] = False
    return np.asarray(np.cumsum(ended, axis=1) == 0)
