"""A self-attention cache that each step makes a longer one of, its beams reordered by the graph."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..bundle import DecoderFacts
from ..contract import BEAM_IDX, INPUT_IDS, cache_names
from ..engines.engine import Engine, Value
from .cache import Binding, Tokens


class GrowingCache:
    """Keys and values [batch, beams, heads, past, head_dim], wherever the engine keeps them. See `SelfAttentionCache`.

    It starts 0 long, with one beam.
    """

    def __init__(self, engine: Engine, facts: DecoderFacts, batch: int) -> None:
        self._engine = engine
        self._present = cache_names("present", facts.layers)
        empty = engine.upload(np.zeros((batch, 1, facts.heads, 0, facts.head_dim), dtype=np.float32))
        self._past: Mapping[str, Value] = dict.fromkeys(cache_names("past", facts.layers), empty)

    def bind(self, input_ids: Tokens, beam_idx: Tokens) -> Binding:
        """See `SelfAttentionCache.bind`."""
        arrays = {INPUT_IDS: np.ascontiguousarray(input_ids), BEAM_IDX: np.ascontiguousarray(beam_idx)}
        inputs = {name: self._engine.upload(array) for name, array in arrays.items()}
        return Binding({**inputs, **self._past}, self._present)

    def advance(self, results: Mapping[str, Value]) -> None:
        """See `SelfAttentionCache.advance`."""
        self._past = {past: results[present] for past, present in zip(self._past, self._present, strict=True)}

    def keep(self, rows: NDArray[np.int64]) -> None:
        """See `SelfAttentionCache.keep`."""
        download, upload = self._engine.download, self._engine.upload
        self._past = {name: upload(np.ascontiguousarray(download(past)[rows])) for name, past in self._past.items()}
