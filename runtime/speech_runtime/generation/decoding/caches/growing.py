"""A self-attention cache that every step replaces by a longer one, its beams reordered by the graph."""

from collections.abc import Mapping, Sequence

import numpy as np

from ....backends.base import Backend, Value
from ....bundle.graph_io import BEAM_IDX, DECODER_WITH_PAST, INPUT_IDS, cache_names
from ....bundle.model_facts import DecoderFacts
from ...search.base import PerBeam, Tokens
from .base import Binding


class GrowingCache:
    """Keys and values [batch, beams, heads, past, head_dim], wherever the backend keeps them. See `SelfAttentionCache`.

    It starts with a past of 0 tokens and one beam.
    """

    def __init__(self, backend: Backend, facts: DecoderFacts, batch: int) -> None:
        self._backend = backend
        self._present = cache_names("present", facts.layers)
        shape, names = (batch, 1, facts.heads, 0, facts.head_dim), cache_names("past", facts.layers)
        dtypes = {name: backend.dtype(DECODER_WITH_PAST, name) for name in names}
        empty = {dtype: backend.upload(np.zeros(shape, dtype=dtype)) for dtype in set(dtypes.values())}
        self._past: Mapping[str, Value] = {name: empty[dtypes[name]] for name in names}

    def bind(self, input_ids: Tokens, beam_idx: PerBeam) -> Binding:
        """See `SelfAttentionCache.bind`."""
        arrays = {INPUT_IDS: np.ascontiguousarray(input_ids), BEAM_IDX: np.array(beam_idx)}
        inputs = {name: self._backend.upload(array) for name, array in arrays.items()}
        return Binding(input_ids.shape, {**inputs, **self._past}, self._present)

    def append_token(self, tokens: PerBeam, beam_idx: PerBeam) -> Binding:
        """See `SelfAttentionCache.append_token`."""
        return self.bind(np.array(tokens)[:, :, None], beam_idx)

    @property
    def slots(self) -> None:
        """See `SelfAttentionCache.slots`: the graph puts the beams in order."""

    def commit(self, results: Mapping[str, Value]) -> None:
        """See `SelfAttentionCache.commit`."""
        self._past = {past: results[present] for past, present in zip(self._past, self._present, strict=True)}

    def select_utterances(self, utterances: Sequence[int]) -> None:
        """See `SelfAttentionCache.select_utterances`."""
        download, upload = self._backend.download, self._backend.upload
        self._past = {
            name: upload(np.ascontiguousarray(download(past)[utterances])) for name, past in self._past.items()
        }
