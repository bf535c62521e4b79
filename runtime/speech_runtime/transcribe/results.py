"""What is heard in a clip."""

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from ..generation.config import GenerationConfig
from ..generation.output import GenerateOutput
from ..generation.search.finish import Finish
from ..generation.tokenizer import texts_of


@dataclass(frozen=True)
class Hypothesis:
    """One thing that may have been said.

    Attributes:
        text: without special tokens.
        tokens: ids of the sequence, start and end tokens included, padding not.
        score: log-probability of the new tokens / (their number ** length_penalty).
        finished: how it ended; "end", or what cut it off: "length", its maximal length; "time", `max_time`; "stopped",
            `cancel`.
    """

    text: str
    tokens: list[int]
    score: float
    finished: Finish

    @property
    def cut(self) -> str | None:
        """What cut the text off, and what to do about it, in words; None where it is whole."""
        return _CUTS.get(self.finished)


@dataclass(frozen=True)
class Transcription(Hypothesis):
    """What was heard in one clip: its best hypothesis, and what is known besides.

    Attributes:
        alternatives: the other hypotheses, where `num_return_sequences` asks for more than one; the better first.
        audio_seconds: length of the clip.
        encode_seconds: of the clip's batch, shared out among its clips.
        decode_seconds: likewise.
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
    """Make a transcription of each utterance of a batch.

    Args:
        found: by the search.
        config: what was searched with.
        tokenizer: of the model.
        audio_seconds: length of each clip.
        encode_seconds: of the whole batch.
        decode_seconds: of the whole batch.
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
    """What was found for each utterance, the best first."""
    rows = zip(found.sequences.tolist(), found.lengths.tolist(), strict=True)
    sequences = [sequence[:length] for sequence, length in rows]
    texts = texts_of(tokenizer, sequences)
    parts = zip(texts, sequences, found.sequences_scores.tolist(), found.finished.tolist(), strict=True)
    flat = [Hypothesis(*each) for each in parts]
    returned = config.num_return_sequences
    return [flat[begin : begin + returned] for begin in range(0, len(flat), returned)]


_CUTS: dict[Finish, str] = {
    "length": "the text is cut off at its maximal length; allow more tokens with max_new_tokens",
    "time": "the text is cut off because its time was over; allow more with max_time",
    "stopped": "the text is cut off because the search was cancelled",
}
