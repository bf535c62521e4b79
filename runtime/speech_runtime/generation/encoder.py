"""The encoder of a bundle and its output."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..audio import Samples
from ..audio.features import FeatureExtractor
from ..audio.features.shared import pad
from ..backends.base import Backend, Value
from ..bundle.graph_io import ATTENTION_MASK, ENCODER, ENCODER_ATTENTION_MASK, ENCODER_HIDDEN_STATES
from ..bundle.model_facts import EncoderFacts
from ..input_checks import check_inputs


@dataclass(frozen=True)
class EncoderOutput:
    """Output of the encoder for a batch, on the backend's device. It can be decoded any number of times.

    Attributes:
        hidden_states: Hidden states [batch, frames, size].
        attention_mask: Mask int64 [batch, frames], 1 where a frame holds audio.
        batch: Number of utterances.
    """

    hidden_states: Value
    attention_mask: Value
    batch: int


class SpeechEncoder:
    """Runs the encoder graph."""

    def __init__(self, backend: Backend, facts: EncoderFacts) -> None:
        self._backend = backend
        self._facts = facts

    def __call__(self, inputs: ArrayLike, attention_mask: ArrayLike | None = None) -> EncoderOutput:
        """Encode model input; see `SpeechGenerator.encode`."""
        values, mask = check_inputs(inputs, attention_mask, self._facts)
        outputs = self._backend.run(
            ENCODER,
            {self._facts.input_name: self._backend.upload(values), ATTENTION_MASK: self._backend.upload(mask)},
            [ENCODER_HIDDEN_STATES, ENCODER_ATTENTION_MASK],
        )
        return EncoderOutput(outputs[ENCODER_HIDDEN_STATES], outputs[ENCODER_ATTENTION_MASK], len(values))

    def clips(self, clips: Sequence[Samples], extractor: FeatureExtractor) -> EncoderOutput:
        """Encode clips as one batch, or one by one where padding would change the output."""
        inputs, mask = extractor(clips)
        if mask.all() or self._facts.padding_neutral:
            return self(inputs, mask)
        alone = [self(*extractor([clip])) for clip in clips]
        hidden_states, _ = pad([self._backend.download(encoded.hidden_states)[0] for encoded in alone], value=0.0)
        masks, _ = pad([self._backend.download(encoded.attention_mask)[0] for encoded in alone], value=0)
        return EncoderOutput(self._backend.upload(hidden_states), self._backend.upload(masks), len(clips))

    def select_utterances(self, encoded: EncoderOutput, utterances: NDArray[np.int64]) -> EncoderOutput:
        """Return the output of some utterances only."""
        if len(utterances) == encoded.batch:
            return encoded
        hidden_states, mask = (
            self._backend.upload(self._backend.download(value)[utterances])
            for value in (encoded.hidden_states, encoded.attention_mask)
        )
        return EncoderOutput(hidden_states, mask, len(utterances))
