"""What is heard in a clip."""

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from .generation.config import GenerationConfig
from .generation.output import GenerateOutput
from .generation.stopping import Interruption


@dataclass(frozen=True)
class Hypothesis:
    """One thing that may have been said.

    Attributes:
        text: without special tokens.
        tokens: ids of the sequence, start and end tokens included, padding not.
        score: log-probability of the new tokens / (their number ** length_penalty).
    """

    text: str
    tokens: list[int]
    score: float


@dataclass(frozen=True)
class Transcription(Hypothesis):
    """What was heard in one clip: its best hypothesis, and what is known besides.

    Attributes:
        alternatives: the other hypotheses, where `num_return_sequences` asks for more than one; the better first.
        interrupted: what ended the search before it was done, if anything did.
        audio_seconds: length of the clip.
        encode_seconds: of the clip's batch, shared out among its clips.
        decode_seconds: likewise.
    """

    alternatives: list[Hypothesis]
    interrupted: Interruption | None
    audio_seconds: float
    encode_seconds: float
    decode_seconds: float


def hypotheses(found: GenerateOutput, config: GenerationConfig, tokenizer: Tokenizer) -> list[list[Hypothesis]]:
    """What was found for each utterance, the best first."""
    sequences = [_without_padding(sequence, config) for sequence in found.sequences.tolist()]
    texts = tokenizer.decode_batch(sequences, skip_special_tokens=True)
    scores = found.sequences_scores.tolist()
    flat = [Hypothesis(*parts) for parts in zip(texts, sequences, scores, strict=True)]
    returned = config.num_return_sequences
    return [flat[begin : begin + returned] for begin in range(0, len(flat), returned)]


def _without_padding(sequence: Sequence[int], config: GenerationConfig) -> list[int]:
    ends = [i for i, token in enumerate(sequence[1:], start=1) if token in config.eos_token_ids]
    return list(sequence[: ends[0] + 1] if ends else sequence)
