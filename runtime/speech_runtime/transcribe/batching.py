"""Any number of clips, transcribed in batches of similar length and in bounded memory."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from ..audio import Audio, Clip, Samples, clip_of, is_clip
from ..dataclass_json import shown
from ..errors import AudioError, EngineError, GenerationError
from ..generation.call_options import SearchKeywords
from ..generation.generator import Language
from ..generation.prompts import Prompts
from ..interrupts import raise_if_interrupted
from .results import Transcription

Item = TypeVar("Item")
Found = TypeVar("Found")
Result = Transcription | AudioError

MOST_CLIPS = 2**16
"""Largest batch size. Memory ends long before."""

_BATCHES_AHEAD = 16
"""Number of batches sorted together: more of them need less padding, but delay the first result."""

PER_CLIP = ("language", "source_language", "decoder_start_token_id", "decoder_input_ids")
"""Keywords that may be a list with a value for each clip."""

OF_PROMPTS = ("language", "source_language", "task", "decoder_input_ids")
"""Keywords that decide what a text begins with; all others are settings and options of the search."""


class ClipKeywords(SearchKeywords, total=False):
    """Keywords of `transcribe`; see `SpeechGenerator.generate`."""

    language: Language | None
    source_language: Language | None
    task: str | None
    decoder_input_ids: Prompts | None


@dataclass(frozen=True)
class _Loaded:
    """A clip that is ready to be transcribed.

    Attributes:
        position: Position in the list of clips.
        name: Name in errors.
        samples: Samples float32 [samples] at the model's sampling rate.
    """

    position: int
    name: str
    samples: Samples


def transcribe_clips(
    audio: Iterable[Audio],
    *,
    load: Callable[[Clip], Samples],
    fits: Callable[[Sequence[Samples]], bool],
    transcribe: Callable[..., list[Transcription]],
    keywords: Mapping[str, Any],
    model_rate: int,
    sampling_rate: float | None = None,
    batch_size: int,
) -> Iterator[Result]:
    """Transcribe clips in batches; see `OnnxSpeechSeq2Seq.transcribe_iter`.

    A batch that does not fit into memory, or on which the model fails, is halved: one clip may be the cause, and the
    others are transcribed all the same.

    Args:
        audio: Clips, read as they are needed.
        load: Function that reads a clip.
        fits: Function that returns true if a batch fits into this machine's memory.
        transcribe: Function that transcribes a batch, with keywords.
        keywords: Those of `PER_CLIP` and `OF_PROMPTS` that were given, a value for all clips; the former may be a list
            with one for each.
        model_rate: Sampling rate of the model, Hz.
        sampling_rate: Sampling rate of samples without one, Hz; that of the model if None.
        batch_size: Largest number of clips in a batch.

    Raises:
        AudioError: `audio` is one clip and not a list.
        GenerationError: The batch size is out of range, or a list has not one value for each clip.
    """
    _check_list(audio)
    _check_batch_size(batch_size)
    shared = dict(keywords)
    per_clip = {name: shared.pop(name) for name in PER_CLIP if _is_list(shared.get(name))}
    clips = _counted(audio, per_clip) if per_clip else audio

    def transcribe_halves(batch: Sequence[_Loaded]) -> list[Result]:
        samples, half = [clip.samples for clip in batch], len(batch) // 2
        if not half or fits(samples):
            own = {name: [values[clip.position] for clip in batch] for name, values in per_clip.items()}
            try:
                return list(transcribe(samples, **shared, **own))
            except (EngineError, MemoryError) as error:
                raise_if_interrupted(error)
                if not half:
                    return [_failed(batch[0], error)]
        return transcribe_halves(batch[:half]) + transcribe_halves(batch[half:])

    def run(batch: Sequence[tuple[int, Clip | AudioError]]) -> Iterator[Result]:
        loaded = [_load(load, i, clip) for i, clip in batch]
        found = iter(transcribe_halves([clip for clip in loaded if isinstance(clip, _Loaded)]))
        return (next(found) if isinstance(clip, _Loaded) else clip for clip in loaded)

    def seconds(clip: tuple[int, Clip | AudioError]) -> float:
        return clip[1].seconds(model_rate) if isinstance(clip[1], Clip) else 0.0

    named = ((i, _clip(clip, sampling_rate, f"audio[{i}]")) for i, clip in enumerate(clips))
    return in_batches(named, seconds, run, batch_size)


def in_batches(
    items: Iterable[Item],
    length: Callable[[Item], float],
    run: Callable[[Sequence[Item]], Iterable[Found]],
    batch_size: int,
) -> Iterator[Found]:
    """Run batches of items of similar lengths; no more than 16 batches of items and results are held at any time.

    Args:
        items: Items, taken as they are needed.
        length: Function that returns the length of an item, in any unit; called only if there is something to sort.
        run: Function that returns one result for each item of a batch.
        batch_size: Largest number of items in a batch.

    Yields:
        Results in the order of `items`, each as soon as those before it are known.
    """
    remaining = iter(items)
    while ahead := list(islice(remaining, batch_size * _BATCHES_AHEAD if batch_size > 1 else 1)):
        order = list(range(len(ahead)))
        if len(ahead) > batch_size:
            order.sort(key=[length(item) for item in ahead].__getitem__)
        known: dict[int, Found] = {}
        position = 0
        for begin in range(0, len(order), batch_size):
            batch = order[begin : begin + batch_size]
            known.update(zip(batch, run([ahead[i] for i in batch]), strict=True))
            while position in known:
                yield known.pop(position)
                position += 1


def _check_list(audio: object) -> None:
    if is_clip(audio):
        raise AudioError("transcribe_iter takes a list of clips, and got one; give it as [audio], or use transcribe")
    if not isinstance(audio, Iterable) and not hasattr(audio, "__getitem__"):
        raise AudioError(f"transcribe_iter takes a list of clips, and got {shown(audio)}; give it as [audio]")


def _check_batch_size(size: object) -> None:
    is_integer = isinstance(size, int | np.integer) and not isinstance(size, bool)
    if not is_integer or not 1 <= size <= MOST_CLIPS:  # type: ignore[operator]
        raise GenerationError(f"batch_size is {shown(size)}, it must be an integer, 1 to {MOST_CLIPS:,}")


def _is_list(values: object) -> bool:
    return (
        hasattr(values, "__len__")
        and not isinstance(values, str | bytes | Mapping | Set)
        and getattr(values, "ndim", 1) > 0
    )


def _counted(audio: Iterable[Audio], per_clip: Mapping[str, Any]) -> list[Audio]:
    """Return all clips, as many as each keyword has values."""
    clips = list(audio)
    for name, values in per_clip.items():
        if len(values) != len(clips):
            raise GenerationError(f"{name} has {len(values)} values for {len(clips)} clips; give one for each")
    return clips


def _clip(audio: Audio, sampling_rate: float | None, name: str) -> Clip | AudioError:
    try:
        return clip_of(audio, sampling_rate, name)
    except AudioError as error:
        raise_if_interrupted(error)
        return error


def _load(load: Callable[[Clip], Samples], position: int, clip: Clip | AudioError) -> _Loaded | AudioError:
    if isinstance(clip, AudioError):
        return clip
    try:
        return _Loaded(position, clip.name, load(clip))
    except AudioError as error:
        raise_if_interrupted(error)
        return error
    except MemoryError as error:
        raise_if_interrupted(error)
        return AudioError(f"{clip.name}: does not fit into memory ({error}); split the audio into shorter pieces")


def _failed(clip: _Loaded, error: Exception) -> AudioError:
    reason = str(error) or "the memory is exhausted"
    if isinstance(error, MemoryError):
        reason += "; split the audio into shorter pieces"
    failed = AudioError(f"{clip.name}: the model failed on its {clip.samples.size:,} samples: {reason}")
    failed.__cause__ = error
    return failed
