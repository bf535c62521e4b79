"""The three graphs, as modules to trace: `Encoder`, `DecoderInit` and `DecoderWithPast`, or one with another cache.

Each calls the Hugging Face model unchanged. Names and shapes of inputs and outputs are part of the bundle's format
(`speech_runtime.bundle.graph_io`).
"""

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, SpeechEncoderDecoderModel
from transformers.cache_utils import CacheLayerMixin, DynamicCache, EncoderDecoderCache

from speech_runtime.bundle.model_facts import DecoderFacts

from ..families import decoder_family, encoder_family
from . import static_cache, tree_cache
from .attention import causal_mask
from .beams import BeamLayer, cross_attentions, folded, repeated
from .best_words import best_words
from .facts import encoder_width
from .past_length import PastLength, PositionsFromInput
from .rewrites.operations import TraceableOperations
from .rewrites.own_attention import is_one_operator
from .static_cache import StaticLayer, length_mask
from .tree_cache import TreeLayer, merged_heads, slots_mask, split_heads

KeyValue = tuple[Tensor, Tensor]


class Encoder(nn.Module):
    """Turns audio into the decoder's `encoder_hidden_states`; includes `enc_to_dec_proj` and downsamples the mask."""

    def __init__(self, model: SpeechEncoderDecoderModel) -> None:
        super().__init__()
        self.encoder: PreTrainedModel = model.encoder
        self.projection: nn.Module = getattr(model, "enc_to_dec_proj", nn.Identity())
        self.family = encoder_family(model.encoder)

    def forward(self, inputs: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode a padded batch.

        Args:
            inputs: Audio float32 [batch, samples], or features [batch, time, features].
            attention_mask: Mask int64 [batch, samples or time], 1 where there is audio.

        Returns:
            `encoder_hidden_states` [batch, frames, width] and `encoder_attention_mask` int64 [batch, frames].
        """
        with TraceableOperations():
            arranged = self.family.arrange(self.encoder, inputs)
            hidden_states = self.encoder(arranged, attention_mask=attention_mask if self.family.takes_mask else None)[0]
            mask = self.family.frame_mask(self.encoder, hidden_states.shape[1], attention_mask)
        return self.projection(hidden_states), mask.to(torch.int64)


class DecoderInit(nn.Module):
    """Projects encoder output to the cross-attention keys and values of every layer.

    This is the decoder's first step with only the cross-attention cache as output: the rest of the step has no
    consumer, and tracing drops it.
    """

    def __init__(self, model: SpeechEncoderDecoderModel, layers: int, *, merges_heads: bool = False) -> None:
        super().__init__()
        self.decoder: PreTrainedModel = model.decoder
        self.family = decoder_family(model.decoder)
        self.layers = layers
        self.merges_heads = merges_heads

    def forward(self, encoder_hidden_states: Tensor) -> list[KeyValue]:
        """Project encoder output [batch, frames, width] to pairs of [batch, heads, frames, head_dim], one a layer.

        With a tree cache the pairs are [batch, frames, heads · head_dim].
        """
        batch, frames, _ = encoder_hidden_states.shape
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self.decoder(
            input_ids=torch.zeros(batch, 1, dtype=torch.int64),
            attention_mask=causal_mask(batch, tokens=1, past=0),
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=self.family.encoder_mask(torch.ones(batch, frames, dtype=torch.int64), 1),
            past_key_values=cache,
            use_cache=True,
        )
        states = [_key_value(cache.cross_attention_cache, layer) for layer in range(self.layers)]
        return [(merged_heads(key), merged_heads(value)) for key, value in states] if self.merges_heads else states


class DecoderWithPast(nn.Module):
    """One step of the search: reorder the cache, decode the new tokens, keep the best candidates."""

    def __init__(self, model: SpeechEncoderDecoderModel, decoder: DecoderFacts) -> None:
        super().__init__()
        self.decoder: PreTrainedModel = model.decoder
        self.family = decoder_family(model.decoder)
        self.cross_attentions = tuple(cross_attentions(model.decoder))
        self.token_types = _token_types(model.decoder)
        self.layers, self.heads, self.width = decoder.layers, decoder.heads, encoder_width(model)
        self.top_k = decoder.top_k
        self.kept = None if decoder.kept_tokens is None else torch.from_numpy(decoder.vocabulary.ids)

    def forward(
        self,
        input_ids: Tensor,
        beam_idx: Tensor,
        encoder_attention_mask: Tensor,
        past: list[KeyValue],
        cross: list[KeyValue],
    ) -> tuple[Tensor, Tensor, Tensor, list[KeyValue]]:
        """Decode `tokens` new tokens of every beam.

        Args:
            input_ids: Token ids int64 [batch, beams, tokens].
            beam_idx: Index of the past beam that each beam continues, int64 [batch, beams].
            encoder_attention_mask: Mask int64 [batch, frames].
            past: Self-attention cache, a pair of [batch, past_beams, heads, past, head_dim] per layer; past may be 0.
            cross: Cross-attention cache, a pair of [batch, heads, frames, head_dim] per layer.

        Returns:
            `logits` [batch, beams, tokens, rows of the head]; the `top_k` best `top_logprobs` and `top_ids` of each
            position, best first; and the cache `present` for the next step.
        """
        batch, beams, tokens = input_ids.shape
        layers = [BeamLayer(layer, beam_idx) for layer in past]
        mask = causal_mask(batch * beams, tokens, past[0][0].shape[3])
        best = self._decode_beams(input_ids, encoder_attention_mask, layers, cross, mask)
        return *best, [layer.present for layer in layers]

    def _decode_beams(
        self,
        input_ids: Tensor,
        encoder_attention_mask: Tensor,
        past: Sequence[CacheLayerMixin],
        cross: list[KeyValue],
        mask: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Decode with a row for each beam, the beams folded into the queries of cross-attention."""
        batch, beams, tokens = input_ids.shape
        # A family whose cross-attention has an unknown name gets a cache for each beam, as in transformers.
        copies, queries = (1, beams * tokens) if self.cross_attentions else (beams, tokens)
        cross = [(repeated(key, copies), repeated(value, copies)) for key, value in cross]
        encoder_mask = self.family.encoder_mask(repeated(encoder_attention_mask, copies), queries)
        with folded(self.cross_attentions, batch, beams):
            logits = self._decode(input_ids.flatten(0, 1), encoder_mask, past, cross, mask)
        return self._best(logits.view(batch, beams, tokens, -1))

    def _decode(
        self,
        input_ids: Tensor,
        encoder_mask: Tensor,
        past: Sequence[CacheLayerMixin],
        cross: list[KeyValue],
        mask: Tensor,
    ) -> Tensor:
        """Return the logits of `input_ids` [rows, tokens] after the caches; the masks have the decoder's form."""
        self_cache, cross_cache = DynamicCache(), DynamicCache()
        self_cache.layers += past
        for layer, (key, value) in enumerate(cross):
            cross_cache.update(key, value, layer)
        cache = EncoderDecoderCache(self_cache, cross_cache)
        cache.is_updated = dict.fromkeys(range(self.layers), True)
        logits: Tensor = self.decoder(
            input_ids=input_ids,
            attention_mask=mask,
            encoder_hidden_states=torch.zeros(1, 1, self.width),  # not used: its keys are cached
            encoder_attention_mask=encoder_mask,
            past_key_values=cache,
            use_cache=True,
            **self.token_types,
        ).logits
        return logits

    def _best(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        _, top_ids = torch.topk(logits, self.top_k, dim=-1)
        # A whole log-softmax is one fast kernel; a log-sum-exp of its parts would be several slow ones.
        top_logprobs = torch.log_softmax(logits, dim=-1).gather(-1, top_ids)
        return logits, top_logprobs, self._token_ids(top_ids)

    def _token_ids(self, rows: Tensor) -> Tensor:
        """Return the token ids of rows of the head; they are ascending, so equal logits keep their order."""
        return rows if self.kept is None else self.kept[rows]


class DecoderWithStaticPast(DecoderWithPast):
    """The same step of one token, with a cache whose length is the same before and after it."""

    def forward(  # type: ignore[override]  # another graph, with one more input
        self,
        input_ids: Tensor,
        past_rows: Tensor,
        past_length: Tensor,
        encoder_attention_mask: Tensor,
        past: list[KeyValue],
        cross: list[KeyValue],
    ) -> tuple[Tensor, Tensor, Tensor, list[KeyValue]]:
        """Decode one new token of every beam.

        Args:
            input_ids: Token ids int64 [batch, beams, 1].
            past_rows: Row of the past that each beam continues, int64 [batch, beams], out of [batch × past_beams].
            past_length: Number of past tokens, int64 [1].
            encoder_attention_mask: Mask int64 [batch, frames].
            past: Self-attention cache, a pair of [batch, past_beams, heads, length, head_dim] per layer; behind the
                first `past_length` tokens it may hold anything.
            cross: Cross-attention cache, a pair of [batch, heads, frames, head_dim] per layer.

        Returns:
            The results of `DecoderWithPast.forward`; `present` is as long as `past`.
        """
        batch, beams, _ = input_ids.shape
        with PositionsFromInput():
            seen = PastLength(past_length, static_cache.REMEDY)
            layers = [StaticLayer(layer, past_rows, seen) for layer in past]
            mask = length_mask(batch * beams, past[0][0].shape[3], seen)
            best = self._decode_beams(input_ids, encoder_attention_mask, layers, cross, mask)
        return *best, [layer.present for layer in layers]


class DecoderWithTreePast(DecoderWithPast):
    """The same step with a cache that the beams share; they are further tokens of their utterance."""

    def forward(  # type: ignore[override]  # another graph, with other inputs
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        write_slot: Tensor,
        slot_mask: Tensor,
        encoder_attention_mask: Tensor,
        past: list[KeyValue],
        cross: list[KeyValue],
    ) -> tuple[Tensor, Tensor, Tensor, list[KeyValue]]:
        """Decode `tokens` new tokens of every beam: the queries, those of the first beam before those of the second.

        Args:
            input_ids: Token ids int64 [batch, beams, tokens].
            position_ids: Position of each query's token, int64 [queries].
            write_slot: Slot of the first query of each utterance, int64 [batch]; the others follow it.
            slot_mask: Which slots each query sees, bool [batch, queries, slots]; its own is among them.
            encoder_attention_mask: Mask int64 [batch, frames].
            past: Self-attention cache, a pair of [batch, slots, heads · head_dim] per layer; where no query sees it, it
                may hold any finite number.
            cross: Cross-attention cache, a pair of [batch, frames, heads · head_dim] per layer.

        Returns:
            The results of `DecoderWithPast.forward`; `present` is `past` with the queries written into it.
        """
        _, beams, tokens = input_ids.shape
        with PositionsFromInput(beams, tokens):
            seen = PastLength(position_ids, tree_cache.REMEDY)
            layers = [TreeLayer(layer, write_slot, seen) for layer in past]
            by_head = [(split_heads(key, self.heads), split_heads(value, self.heads)) for key, value in cross]
            # One mask for all queries: so `onnx_attention` knows that only padding is hidden.
            masks = 1 if is_one_operator(self.decoder) else beams * tokens
            encoder_mask = self.family.encoder_mask(encoder_attention_mask, masks)
            logits = self._decode(input_ids.flatten(1), encoder_mask, layers, by_head, slots_mask(slot_mask))
            logits, top_logprobs, rows = best_words(logits, self.top_k, beams, tokens)
        return logits, top_logprobs, self._token_ids(rows), [layer.present for layer in layers]


def _token_types(decoder: PreTrainedModel) -> dict[str, Tensor]:
    """Return type 0 for all tokens if a decoder has token types, as it would without the argument; else nothing.

    It is one number that is known at tracing time, in place of a lookup for each token of a step.
    """
    known = any(name.endswith("token_type_embeddings") for name, _ in decoder.named_modules())
    takes = "token_type_ids" in inspect.signature(decoder.forward).parameters
    return {"token_type_ids": torch.zeros(1, 1, dtype=torch.int64)} if known and takes else {}


def _key_value(cache: DynamicCache, layer: int) -> KeyValue:
    return cache.layers[layer].keys, cache.layers[layer].values
