"""The torch model as the reference that an export is measured against: transformers' own search and logits."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import SpeechEncoderDecoderModel
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from ..bundle_writer.generation_settings import plain_search
from ..families import decoder_family, encoder_family


class Oracle:
    """A composite model on one padded batch."""

    def __init__(
        self, model: SpeechEncoderDecoderModel, inputs: NDArray[np.float32], attention_mask: NDArray[np.int64]
    ) -> None:
        """Take `inputs` [batch, samples] or [batch, time, features] with their mask [batch, samples or time].

        They are cast to the precision of the model.
        """
        self._model = model
        self._decoder = decoder_family(model.decoder)
        self._inputs = torch.from_numpy(inputs).to(model.dtype)
        takes_mask = encoder_family(model.encoder).takes_mask
        self._mask = {"attention_mask": torch.from_numpy(attention_mask)} if takes_mask else {}

    def generate(self, **settings: Any) -> NDArray[np.int64]:
        """Tokens int64 [batch × num_return_sequences, length] of `model.generate` by these settings alone."""
        with self._decoder.adapt(self._model.decoder), plain_search(self._model), torch.no_grad():
            tokens: Tensor = self._model.generate(self._inputs, **self._mask, past_key_values=_cache(), **settings)
        return tokens.numpy()

    def logprobs(self, tokens: NDArray[np.int64], at_a_time: int | None = None) -> Tensor:
        """Log-probabilities [batch, tokens, vocabulary] of what follows each of `tokens` [batch, tokens].

        They are in the precision of the model. So many tokens as `at_a_time` says go in together, the others are in
        the cache by then; without it, all of them, or as many as the family takes.
        """
        cache, logits = _cache(), []
        chunks = torch.split(torch.from_numpy(tokens), at_a_time or self._decoder.max_tokens or tokens.shape[1], dim=1)
        with self._decoder.adapt(self._model.decoder), torch.no_grad():
            encoded = self._encoded()
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

    def encode(self) -> tuple[Tensor, Tensor]:
        """What the decoder attends to, float32 [batch, frames, width], and its mask [batch, frames]."""
        with torch.no_grad():
            hidden_states = getattr(self._model, "enc_to_dec_proj", nn.Identity())(self._encoded()[0])
        mask = self.frame_mask(hidden_states.shape[1])
        return hidden_states, torch.ones(hidden_states.shape[:2], dtype=torch.int64) if mask is None else mask

    def frame_mask(self, frames: int) -> Tensor | None:
        """Which of so many frames hold audio, [batch, frames]; None for an encoder that takes no mask: all of them."""
        return self._model.encoder._get_feature_vector_attention_mask(frames, **self._mask) if self._mask else None

    def _encoded(self) -> Any:
        return self._model.encoder(self._inputs, **self._mask)


def _cache() -> EncoderDecoderCache:
    """A cache that grows with the layers.

    transformers' own is as long as the encoder of a BART-like configuration, which may be shorter than its decoder.
    """
    return EncoderDecoderCache(DynamicCache(), DynamicCache())
