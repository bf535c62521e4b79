"""The torch model as reference: the tokens of its searches on a batch, and the log-probabilities along them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import SpeechEncoderDecoderModel
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from speech_runtime.bundle.model_facts import PromptTemplate
from speech_runtime.generation.config import GenerationSettings
from speech_runtime.generation.prompt_template import filled

from ..bundle_writer.generation_settings import plain_search
from ..families import decoder_family, encoder_family
from ..sources.special_tokens import start_token
from .evaluation_audio import AudioSet, Batch

BEAMS = 4
_CANDIDATES = 64


class Oracle:
    """A composite model of torch on one padded batch: transformers' own search and logits."""

    def __init__(
        self, model: SpeechEncoderDecoderModel, inputs: NDArray[np.float32], attention_mask: NDArray[np.int64]
    ) -> None:
        """Take a batch, and cast it to the precision of the model.

        Args:
            model: Torch model.
            inputs: Model input [batch, samples] or [batch, time, features].
            attention_mask: Mask of the input [batch, samples or time].
        """
        self._model = model
        self._decoder = decoder_family(model.decoder)
        encoder = encoder_family(model.encoder)
        self._inputs = encoder.arrange(model.encoder, torch.from_numpy(inputs)).to(model.dtype)
        self._mask = {"attention_mask": torch.from_numpy(attention_mask)} if encoder.takes_mask else {}

    def generate(self, **settings: Any) -> NDArray[np.int64]:
        """Run `model.generate` with these settings alone; return int64 [batch × num_return_sequences, length]."""
        with self._decoder.adapt(self._model.decoder), plain_search(self._model), torch.no_grad():
            tokens: Tensor = self._model.generate(self._inputs, **self._mask, past_key_values=_cache(), **settings)
        return tokens.numpy()

    def logprobs(self, tokens: NDArray[np.int64], at_a_time: int | None = None) -> Tensor:
        """Return the log-probabilities of the next token after each of `tokens`, in the precision of the model.

        Args:
            tokens: Token ids [batch, tokens].
            at_a_time: Number of tokens that are decoded together, those before them being in the cache; by default
                all of them, or as many as the family takes.

        Returns:
            Log-probabilities [batch, tokens, vocabulary].
        """
        cache, logits = _cache(), []
        chunks = torch.split(torch.from_numpy(tokens), at_a_time or self._decoder.max_tokens or tokens.shape[1], dim=1)
        with self._decoder.adapt(self._model.decoder), torch.no_grad():
            encoded = self._encoded
            for chunk in chunks:
                step = self._model(
                    attention_mask=self._mask.get("attention_mask"),
                    encoder_outputs=encoded,
                    decoder_input_ids=chunk,
                    past_key_values=cache,
                    use_cache=True,
                )
                logits.append(step.logits)
        return torch.log_softmax(torch.cat(logits, dim=1), dim=-1)

    def prompts(self, template: PromptTemplate) -> NDArray[np.int64]:
        """Return the prompts of the batch, the start token included: int64 [batch, tokens]."""
        return filled(
            template,
            (start_token(self._model.generation_config),) * len(self._inputs),
            template.example_language,
            None,
            lambda starts: self.logprobs(starts)[:, -1].numpy(),
        )

    def encode(self) -> tuple[Tensor, Tensor]:
        """Return the encoder's output for the decoder, float32 [batch, frames, width], and its mask [batch, frames]."""
        with torch.no_grad():
            hidden_states = getattr(self._model, "enc_to_dec_proj", nn.Identity())(self._encoded[0])
        mask = self.frame_mask()
        return hidden_states, torch.ones(hidden_states.shape[:2], dtype=torch.int64) if mask is None else mask

    def frame_mask(self) -> Tensor | None:
        """Return which frames hold audio [batch, frames]; None, for all, if the encoder takes no mask."""
        frames = self._encoded[0].shape[1]
        return self._model.encoder._get_feature_vector_attention_mask(frames, **self._mask) if self._mask else None

    @cached_property
    def _encoded(self) -> Any:
        with torch.no_grad():
            return self._model.encoder(self._inputs, **self._mask)


def _cache() -> EncoderDecoderCache:
    """Return a cache that gains layers as they are used.

    transformers' own has as many layers as the encoder of a BART-like configuration, which may be fewer than the
    decoder has.
    """
    return EncoderDecoderCache(DynamicCache(), DynamicCache())


@dataclass(frozen=True)
class Expectation:
    """One search of the torch model on one batch.

    Attributes:
        batch: Model input.
        search: Settings of the search.
        prompts: Prompts int64 [batch, tokens], the start token included; None for that token alone.
        tokens: Token ids int64 [batch, length].
        logprobs: Log-probabilities float32 [batch, length, words] of the token after each.
        words: Token ids of `logprobs`, int64 of the same shape, best first; None for the whole vocabulary in order.
        spoken: Mask bool [batch, length], false where a sequence has ended.
        frames: Number of encoder frames with audio, int64 [batch]; None if the encoder takes no mask.
    """

    batch: Batch
    search: GenerationSettings
    prompts: NDArray[np.int64] | None
    tokens: NDArray[np.int64]
    logprobs: Tensor
    words: Tensor | None
    spoken: NDArray[np.bool_]
    frames: NDArray[np.int64] | None

    @property
    def beams(self) -> int:
        """Number of beams of the search."""
        return self.search["num_beams"]

    @property
    def prompt_length(self) -> int:
        """Number of tokens of a prompt, the start token included."""
        return 1 if self.prompts is None else self.prompts.shape[1]

    @property
    def scores(self) -> Tensor:
        """Mean log-probability of each sequence's new tokens, float32 [batch]; needs the whole vocabulary.

        A search that mistakes the past of another beam for its own has other scores, even if its tokens are the same.
        """
        first = self.prompt_length
        spoken = torch.from_numpy(self.spoken[:, first - 1 : -1])
        following = torch.from_numpy(self.tokens[:, first:, None])
        found = self.logprobs[:, first - 1 : -1].gather(-1, following).squeeze(-1).where(spoken, 0)
        return found.sum(dim=-1) / spoken.sum(dim=-1)


def expectations(
    model: SpeechEncoderDecoderModel,
    audio: AudioSet,
    new_tokens: int,
    *,
    whole: bool,
    template: PromptTemplate | None = None,
) -> Iterator[Expectation]:
    """Run greedy and beam search on every batch.

    Args:
        model: Torch model.
        audio: Batches.
        new_tokens: Maximum number of new tokens.
        whole: If true, keep the log-probabilities of the whole vocabulary, else only the best ones.
        template: Template of the model's prompts; None for start tokens alone.
    """
    end = model.generation_config.eos_token_id
    ends = [] if end is None else list(end) if isinstance(end, (list, tuple)) else [end]
    for batch in audio.batches:
        oracle = Oracle(model, batch.inputs, batch.attention_mask)
        mask = oracle.frame_mask()
        frames = None if mask is None else mask.sum(dim=-1).to(torch.int64).numpy()
        prompts = None if template is None else oracle.prompts(template)
        given = {} if prompts is None else {"decoder_input_ids": torch.from_numpy(prompts)}
        for beams in (1, BEAMS):
            search: GenerationSettings = {"num_beams": beams, "num_return_sequences": 1, "max_new_tokens": new_tokens}
            tokens = oracle.generate(**search, **given)
            logprobs, words = oracle.logprobs(tokens), None
            if not whole:
                logprobs, words = best_words(logprobs)
            yield Expectation(batch, search, prompts, tokens, logprobs, words, _spoken(tokens, ends), frames)


def best_words(logprobs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest of `logprobs` [..., vocabulary], best first, and their token ids."""
    best = torch.topk(logprobs, min(_CANDIDATES, logprobs.shape[-1]), dim=-1)
    return best.values, best.indices


def _spoken(tokens: NDArray[np.int64], ends: list[int]) -> NDArray[np.bool_]:
    """Return where a sequence has not ended, bool [batch, length]; the start token never ends it."""
    ended = np.isin(tokens, ends)
    ended[:, 0] = False
    return np.asarray(np.cumsum(ended, axis=1) == 0)
