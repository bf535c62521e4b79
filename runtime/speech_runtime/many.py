"""Any number of clips, in batches of similar length and in bounded memory."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from .audio import Samples, is_file
from .batches import by_length
from .errors import AudioError, GenerationError
from .transcription import Transcription

Audio = TypeVar("Audio")

OF_EACH_CLIP = ("language", "decoder_start_token_id", "decoder_input_ids")
"""Keywords that may have a value for each clip."""


@dataclass(frozen=True)
class Steps(Generic[Audio]):
    """What a model does with a clip, and with a batch.

    Attributes:
        seconds: of audio, before it is loaded.
        load: the clip at a position of the list.
        fits: whether so many samples of each of so many clips fit this machine's memory.
        transcribe: a batch, with keywords.
    """

    seconds: Callable[[Audio], float]
    load: Callable[[int, Audio], Samples]
    fits: Callable[[Sequence[Samples]], bool]
    transcribe: Callable[..., list[Transcription]]


def transcribe_many(
    audio: Iterable[Audio], steps: Steps[Audio], batch_size: int, keywords: Mapping[str, Any]
) -> Iterator[Transcription | AudioError]:
    """Transcribe clips; see `OnnxSpeechSeq2Seq.transcribe_all`.

    Raises:
        AudioError: `audio` is one clip and no list.
        GenerationError: a batch size below 1, or as many values of a keyword as there are clips are not there.
    """
    if _is_one_clip(audio):
        raise AudioError("transcribe_all takes a list of clips, and got one; give it as [audio], or use transcribe")
    if batch_size < 1:
        raise GenerationError(f"batch_size is {batch_size}, it must be at least 1")
    shared = dict(keywords)
    single = {name: shared.pop(name) for name in OF_EACH_CLIP if _is_list(shared.get(name))}
    clips = list(audio) if single else audio
    for name, values in single.items():
        if len(values) != len(clips):  # type: ignore[arg-type]  # it is a list, where there are such keywords
            raise GenerationError(f"{name} has {len(values)} values for {len(clips)} clips; give one for each")  # type: ignore[arg-type]

    def transcribe(batch: Sequence[tuple[int, Samples]]) -> list[Transcription]:
        samples = [clip for _, clip in batch]
        if len(batch) > 1 and not steps.fits(samples):
            half = len(batch) // 2
            return transcribe(batch[:half]) + transcribe(batch[half:])
        own = {name: [values[i] for i, _ in batch] for name, values in single.items()}
        return steps.transcribe(samples, **shared, **own)

    def run(batch: Sequence[tuple[int, Audio]]) -> Iterator[Transcription | AudioError]:
        loaded = [(i, _load(steps, i, clip)) for i, clip in batch]
        heard = iter(transcribe([(i, clip) for i, clip in loaded if not isinstance(clip, AudioError)]))
        return (clip if isinstance(clip, AudioError) else next(heard) for _, clip in loaded)

    return by_length(enumerate(clips), lambda clip: steps.seconds(clip[1]), run, batch_size)


def _load(steps: Steps[Audio], position: int, clip: Audio) -> Samples | AudioError:
    try:
        return steps.load(position, clip)
    except AudioError as error:
        return error


def _is_one_clip(audio: object) -> bool:
    """Whether it is a clip itself, whose letters, bytes, lines or samples would be taken for clips."""
    return is_file(audio) or isinstance(audio, (bytes, Mapping)) or (isinstance(audio, np.ndarray) and audio.ndim < 2)


def _is_list(values: object) -> bool:
    return hasattr(values, "__len__") and not isinstance(values, str)
