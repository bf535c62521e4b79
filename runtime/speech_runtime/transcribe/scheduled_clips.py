"""A clip on its way through a scheduler: as it is submitted, and once it is encoded."""

from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from ..audio import Samples
from ..generation.call_options import CallOptions
from ..generation.config import GenerationConfig
from ..generation.decoding.session import Decoder
from ..generation.decoding.utterance import Utterance
from ..generation.output import joined
from ..generation.search.stopping import Deadline
from .results import Transcription, transcriptions


@dataclass(frozen=True)
class SubmittedClip:
    """A clip to be transcribed, with what its caller asks for.

    Attributes:
        samples: Samples float32 [samples] at the model's sampling rate.
        options: Options of the call.
        config: Settings.
        of_prompt: Keywords that decide what its text begins with.
        deadline: Deadline, counted from its submission.
    """

    samples: Samples
    options: CallOptions
    config: GenerationConfig
    of_prompt: dict[str, Any]
    deadline: Deadline


@dataclass(frozen=True)
class EncodedClip:
    """A clip that is ready to be decoded.

    Attributes:
        utterance: Its search.
        decoder: Its caches, empty.
        config: Settings.
        tokenizer: Tokenizer of the model.
        audio_seconds: Its length.
        encode_seconds: Time that its encoding took.
    """

    utterance: Utterance
    decoder: Decoder
    config: GenerationConfig
    tokenizer: Tokenizer
    audio_seconds: float
    encode_seconds: float

    def transcription(self, decode_seconds: float) -> Transcription:
        """Return its transcription, once the search has ended."""
        results = self.utterance.results()
        found = joined([results], self.config.fill_token_id, self.utterance.steps, self.utterance.beams)
        seconds = [self.audio_seconds], self.encode_seconds, decode_seconds
        return transcriptions(found, self.config, self.tokenizer, *seconds)[0]
