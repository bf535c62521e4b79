"""Results of a transcription: the best hypothesis of a clip, and its alternatives."""

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from ..generation.config import GenerationConfig
from ..generation.output import GenerateOutput
from ..generation.search.stopping import Finish
from ..generation.text import texts_of


@dataclass(frozen=True)
class Hypothesis:
    """A text that a clip may contain.

    Attributes:
        text: Text, without special tokens.
        tokens: Token ids of the sequence, start and end tokens included, padding not.
        score: Log-probability of the new tokens / (their number ** length_penalty).
        finished: Reason why it ended: "end"; or it was cut off at its maximal length ("length"), by `max_time`
            ("time") or by `cancel` ("stopped").
    """

    text: str
    tokens: list[int]
    score: float
    finished: Finish

    @property
    def cut(self) -> str | None:
        """Explanation of why the text is cut off, and the remedy; None if the text is complete."""
        return _CUTS.get(self.finished)


@dataclass(frozen=True)
class Transcription(Hypothesis):
    """Transcription of one clip: its best hypothesis, its alternatives and times.

    Attributes:
        alternatives: Other hypotheses, best first, if `num_return_sequences` is above 1.
        audio_seconds: Length of the clip.
        encode_seconds: Time to encode the clip's batch / number of clips in it.
        decode_seconds: Time to decode the clip's batch / number of clips in it.
    """

    alternatives: list[Hypothesis]
    audio_seconds: float
    encode_seconds: float
    decode_seconds: float


def transcriptions(
    found: GenerateOutput,
    config: GenerationConfig,
    tokenizer: Tokenizer,
    audio_seconds: Sequence[float],
    encode_seconds: float,
    decode_seconds: float,
) -> list[Transcription]:
    """Return the transcription of each clip of a batch.

    Args:
        found: Output of the search.
        config: Settings of the search.
        tokenizer: Tokenizer of the model.
        audio_seconds: Length of each clip.
        encode_seconds: Time to encode the whole batch.
        decode_seconds: Time to decode the whole batch.
    """
    clips = len(audio_seconds)
    return [
        Transcription(
            **vars(best),
            alternatives=others,
            audio_seconds=seconds,
            encode_seconds=encode_seconds / clips,
            decode_seconds=decode_seconds / clips,
        )
        for seconds, (best, *others) in zip(audio_seconds, _hypotheses(found, config, tokenizer), strict=True)
    ]


def _hypotheses(found: GenerateOutput, config: GenerationConfig, tokenizer: Tokenizer) -> list[list[Hypothesis]]:
    """Return the hypotheses of each utterance, best first."""
    rows = zip(found.sequences.tolist(), found.lengths.tolist(), strict=True)
    sequences = [sequence[:length] for sequence, length in rows]
    texts = texts_of(tokenizer, sequences)
    parts = zip(texts, sequences, found.sequences_scores.tolist(), found.finished.tolist(), strict=True)
    flat = [Hypothesis(*each) for each in parts]
    returned = config.num_return_sequences
    return [flat[begin : begin + returned] for begin in range(0, len(flat), returned)]


_CUTS: dict[Finish, str] = {
    "length": "the text is cut off at its maximal length; allow more tokens with max_new_tokens, or split the audio if "
    "the decoder takes no more",
    "time": "the text is cut off because its time was over; allow more time with max_time",
    "stopped": "the text is cut off because the search was cancelled",
}
