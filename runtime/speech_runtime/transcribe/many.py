"""Any number of clips, in batches of similar length and in bounded memory."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..audio import Audio, Clip, Samples, clip_of, is_clip
from ..dataclass_json import shown
from ..errors import AudioError, EngineError, GenerationError
from ..generation.call_options import SearchKeywords
from ..generation.generator import Language
from ..generation.prompts import Prompts
from .batches import MOST_ITEMS, by_length
from .results import Transcription

Result = Transcription | AudioError


class ClipKeywords(SearchKeywords, total=False):
    """Keywords of `transcribe`; see `SpeechGenerator.generate`."""

    language: Language | None
    decoder_input_ids: Prompts | None


OF_EACH_CLIP = ("language", "decoder_start_token_id", "decoder_input_ids")
"""Keywords that may have a value for each clip."""


@dataclass(frozen=True)
class Steps:
    """What a model does with a clip, and with a batch.

    Attributes:
        sampling_rate: of the model, Hz.
        load: a clip.
        fits: whether so many samples of each of so many clips fit this machine's memory.
        transcribe: a batch, with keywords.
    """

    sampling_rate: int
    load: Callable[[Clip], Samples]
    fits: Callable[[Sequence[Samples]], bool]
    transcribe: Callable[..., list[Transcription]]


@dataclass(frozen=True)
class _Loaded:
    """A clip that is ready to be transcribed.

    Attributes:
        position: in the list.
        name: in errors.
        samples: float32 [samples] at the model's rate.
    """

    position: int
    name: str
    samples: Samples


def transcribe_many(
    audio: Iterable[Audio],
    steps: Steps,
    batch_size: int,
    keywords: Mapping[str, Any],
    sampling_rate: float | None = None,
) -> Iterator[Result]:
    """Transcribe clips; see `OnnxSpeechSeq2Seq.transcribe_all`.

    Raises:
        AudioError: `audio` is one clip and no list.
        GenerationError: a batch size out of its range, or as many values of a keyword as there are clips are not there.
    """
    if is_clip(audio):
        raise AudioError("transcribe_all takes a list of clips, and got one; give it as [audio], or use transcribe")
    if not isinstance(audio, Iterable) and not hasattr(audio, "__getitem__"):
        raise AudioError(f"transcribe_all takes a list of clips, and got {shown(audio)}; give it as [audio]")
    _check_batch_size(batch_size)
    shared = dict(keywords)
    single = {name: shared.pop(name) for name in OF_EACH_CLIP if _is_list(shared.get(name))}
    clips = list(audio) if single else audio
    for name, values in single.items():
        if len(values) != len(clips):  # type: ignore[arg-type]  # it is a list, where there are such keywords
            raise GenerationError(f"{name} has {len(values)} values for {len(clips)} clips; give one for each")  # type: ignore[arg-type]

    def transcribe(batch: Sequence[_Loaded]) -> list[Result]:
        samples = [clip.samples for clip in batch]
        half = len(batch) // 2
        if half and not steps.fits(samples):
            return transcribe(batch[:half]) + transcribe(batch[half:])
        own = {name: [values[clip.position] for clip in batch] for name, values in single.items()}
        try:
            return list(steps.transcribe(samples, **shared, **own))
        except (EngineError, MemoryError) as error:
            if half:  # one of them may be at fault, and the others are not to suffer
                return transcribe(batch[:half]) + transcribe(batch[half:])
            return [_failed(batch[0], error)]

    def run(batch: Sequence[tuple[int, Clip | AudioError]]) -> Iterator[Result]:
        loaded = [_load(steps, i, clip) for i, clip in batch]
        heard = iter(transcribe([clip for clip in loaded if isinstance(clip, _Loaded)]))
        return (next(heard) if isinstance(clip, _Loaded) else clip for clip in loaded)

    def seconds(clip: tuple[int, Clip | AudioError]) -> float:
        return clip[1].seconds(steps.sampling_rate) if isinstance(clip[1], Clip) else 0.0

    named = ((i, _clip(clip, sampling_rate, f"audio[{i}]")) for i, clip in enumerate(clips))
    return by_length(named, seconds, run, batch_size)


def _clip(audio: Audio, sampling_rate: float | None, name: str) -> Clip | AudioError:
    try:
        return clip_of(audio, sampling_rate, name)
    except AudioError as error:
        return error


def _load(steps: Steps, position: int, clip: Clip | AudioError) -> _Loaded | AudioError:
    if isinstance(clip, AudioError):
        return clip
    try:
        return _Loaded(position, clip.name, steps.load(clip))
    except AudioError as error:
        return error
    except MemoryError as error:
        return AudioError(f"{clip.name}: does not fit into memory ({error}); split the audio into shorter pieces")


def _failed(clip: _Loaded, error: Exception) -> AudioError:
    reason = str(error) or "the memory is exhausted"
    failed = AudioError(f"{clip.name}: the model failed on its {clip.samples.size:,} samples: {reason}")
    failed.__cause__ = error
    return failed


def _check_batch_size(size: object) -> None:
    is_integer = isinstance(size, int | np.integer) and not isinstance(size, bool)
    if not is_integer or not 1 <= size <= MOST_ITEMS:  # type: ignore[operator]
        raise GenerationError(f"batch_size is {shown(size)}, it must be an integer, 1 to {MOST_ITEMS:,}")


def _is_list(values: object) -> bool:
    return (
        hasattr(values, "__len__")
        and not isinstance(values, str | bytes | Mapping | Set)
        and getattr(values, "ndim", 1) > 0
    )
