"""The facts that the runtime needs about the encoder, the decoder and its prompt: three parts of the manifest."""

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Literal

from ..dataclass_json import FieldError, shown
from .graph_io import Cache
from .vocabulary import Vocabulary

_MOST = {"layers": 1_000, "heads": 10_000}
"""Upper limits, far above any model: lists of this length are made."""
_LEAST = {"min_length": 0, "extra_frames": 0}


def _check_sizes(record: object, where: str) -> None:
    """Raise `FieldError` for a size below 1, or above what a model can have."""
    problems = []
    for name, value in ((field.name, getattr(record, field.name)) for field in fields(record)):  # type: ignore[arg-type]
        least, most = _LEAST.get(name, 1), _MOST.get(name, 2**31)
        if type(value) is int and not least <= value <= most:
            problems.append(f"{where}.{name} is {value}, expected {least:,} to {most:,}")
    if problems:
        raise FieldError(problems)


@dataclass(frozen=True)
class EncoderFacts:
    """Facts of the encoder.

    Attributes:
        input_name: Name of the encoder's input in transformers.
        feature_size: Width of one feature frame; None for raw waveforms.
        heads: Number of self-attention heads.
        min_length: Samples or feature frames that the first output frame needs.
        max_length: Largest number of samples or feature frames that the encoder takes; None for no limit.
        stride: Samples or feature frames from one frame of self-attention to the next.
        padding_neutral: If true, a clip is encoded alike alone and in a padded batch.
        frame_stride: Samples or feature frames from one output frame to the next, adapters included; None in bundles
            made before it was measured.
        extra_frames: An input of length n has at most n // frame_stride + extra_frames output frames.
    """

    input_name: Literal["input_values", "input_features"]
    feature_size: int | None
    heads: int
    min_length: int
    max_length: int | None
    stride: int
    padding_neutral: bool = True
    frame_stride: int | None = None
    extra_frames: int = 1

    def __post_init__(self) -> None:
        """Raise `FieldError` for sizes that no model has."""
        _check_sizes(self, "encoder")

    @property
    def has_window(self) -> bool:
        """True if all input has the same length; the encoder takes padding as it takes audio."""
        return self.min_length == self.max_length


@dataclass(frozen=True)
class DecoderFacts:
    """Facts of the decoder.

    Attributes:
        layers: Number of layers, each with a self-attention and a cross-attention cache.
        heads: Heads of the caches.
        head_dim: Width of a head in the caches.
        vocab_size: Number of token ids of the model.
        max_positions: Longest sequence in tokens; None for no limit.
        max_tokens: Largest number of tokens that one step takes; None for no limit.
        top_k: Candidates that a step returns for each beam.
        cache: Kind of self-attention cache; see `graph_io.Cache`.
        cache_length: Length of a static cache in tokens; None for the other kinds.
        masks_audio: If true, cross-attention applies the mask of the encoder's frames, so frames may be padded.
        ragged: If true, the utterances of a batch may have pasts of different lengths.
        kept_tokens: Token ids with a row in the embedding and the head, see `Vocabulary.kept`; None for all.
    """

    layers: int
    heads: int
    head_dim: int
    vocab_size: int
    max_positions: int | None
    max_tokens: int | None
    top_k: int
    cache: Cache = "growing"
    cache_length: int | None = None
    masks_audio: bool = True
    ragged: bool = False
    kept_tokens: str | None = None

    def __post_init__(self) -> None:
        """Raise `FieldError` for sizes and tokens that no model has, and a cache whose kind and length contradict."""
        _check_sizes(self, "decoder")
        _ = self.vocabulary  # which checks its tokens
        if (self.cache == "static") != (self.cache_length is not None):
            stated = f"decoder.cache is {self.cache!r} and decoder.cache_length is {self.cache_length}"
            raise FieldError([f"{stated}; a static cache needs a length, and other caches must not have one"])

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Token ids of the decoder."""
        return Vocabulary(self.vocab_size, self.kept_tokens)

    @property
    def longest(self) -> int | None:
        """Longest sequence in tokens, limited by positions and by a static cache; None for no limit."""
        known = [limit for limit in (self.max_positions, self.cache_length) if limit is not None]
        return min(known, default=None)


@dataclass(frozen=True)
class PromptTemplate:
    """Tokens between the start token of every sequence and its text, such as Whisper's language and task.

    Attributes:
        tokens: Token ids where a language or a task is asked for, and the places "language" (of the text),
            "source_language" (of the speech) and "task" for theirs. A place without an answer stays empty, but for a
            missing language, which is detected, and a missing source language, which is that of the text.
        by_default: The same where neither is asked for; None if a language must be.
        languages: Token id of each language, by each of its names; empty if none can be chosen.
        tasks: Token id of each task; empty if none can be chosen.
        language: Language of calls that ask for none; None where the model has no such default.
        task: Task of calls that ask for none; None where the model has no such default.
        task_of_language: Task of calls that ask for a language only; None to leave its place empty.
    """

    tokens: tuple[int | Literal["language", "source_language", "task"], ...]
    by_default: tuple[int | Literal["language", "source_language", "task"], ...] | None
    languages: dict[str, int]
    tasks: dict[str, int]
    language: str | None = None
    task: str | None = None
    task_of_language: str | None = None

    def __post_init__(self) -> None:
        """Raise `FieldError` for names that have no token."""
        problems = [
            f"prompt.{name} is {shown(value)}, which has no token"
            for name, value, known in (
                ("language", self.language, self.languages),
                ("task", self.task, self.tasks),
                ("task_of_language", self.task_of_language, self.tasks),
            )
            if value is not None and value not in known
        ]
        if problems:
            raise FieldError(problems)

    @property
    def example_language(self) -> str | None:
        """Language to take for measurements where a call must give one; None where it need not."""
        if self.by_default is not None or self.language is not None:
            return None
        return "en" if "en" in self.languages else next(iter(self.languages), None)

    @property
    def longest(self) -> int:
        """Largest number of tokens of a prompt, without the start token."""
        return max(len(self.tokens), len(self.by_default or ()))

    @property
    def token_ids(self) -> set[int]:
        """All token ids that a prompt may have."""
        fixed = (*self.tokens, *(self.by_default or ()))
        return {*(token for token in fixed if isinstance(token, int)), *self.languages.values(), *self.tasks.values()}
