"""The forms that users have audio in: files, samples, and dictionaries and tuples of samples with their rate."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import AudioError
from .checks import Samples, array_of, prepare
from .limits import AudioLimits
from .mixing import Mixer
from .reading import duration, read_audio
from .sources import AudioFile, file_name, is_file

_RATE = "sampling_rate"
_SAMPLES = ("array", "raw")
_LARGEST_INTEGER = {"int16": 2**15, "int32": 2**31}

Audio = AudioFile | NDArray[np.floating[Any]] | Mapping[str, Any] | tuple[int, NDArray[Any]]
"""A file, its bytes or an open one; mono samples of full scale ±1; {"array": samples, "sampling_rate": Hz} or
{"bytes": …, "path": …} as Hugging Face's datasets have them; (Hz, samples) as gradio has them."""


@dataclass(frozen=True)
class Clip:
    """One clip, whatever the form that it came in.

    Attributes:
        audio: a file, or samples.
        rate: of samples, Hz; files know their own.
        name: in errors.
        from_gradio: whether samples may be integers, and of several channels.
    """

    audio: AudioFile | ArrayLike
    rate: float | None
    name: str
    from_gradio: bool = False

    def seconds(self, sampling_rate: int) -> float:
        """About how long it is, samples without a rate at `sampling_rate`; 0 where it is not known before reading."""
        if is_file(self.audio):
            return duration(self.audio)
        try:
            return len(self.audio) / (sampling_rate if self.rate is None else self.rate)  # type: ignore[arg-type]
        except Exception:  # no samples or no rate, or an object's own failure; who loads them is told
            return 0.0

    def load(self, sampling_rate: int, limits: AudioLimits | None = None) -> Samples:
        """Read or check it: float32 [samples] at `sampling_rate` Hz.

        Raises:
            AudioError: it cannot be transcribed.
        """
        if is_file(self.audio):
            return read_audio(self.audio, sampling_rate, limits)
        rate = sampling_rate if self.rate is None else self.rate
        samples = _mono(self.audio, rate, self.name, AudioLimits.of(limits)) if self.from_gradio else self.audio
        return prepare(samples, rate, sampling_rate, self.name, limits)


def is_clip(audio: object) -> bool:
    """Whether `audio` is one clip, and no list of clips."""
    return is_file(audio) or isinstance(audio, Mapping) or _is_pair(audio) or getattr(audio, "ndim", 2) < 2


def clip_of(audio: Any, rate: float | None, name: str) -> Clip:
    """Tell what form `audio` has; `rate` is that of samples which come without one.

    Raises:
        AudioError: a dictionary without samples or rate.
    """
    if is_file(audio):
        return Clip(audio, None, file_name(audio))
    if isinstance(audio, Mapping):
        return _of_mapping(audio, rate, name)
    if _is_pair(audio):
        return Clip(audio[1], float(audio[0]), name, from_gradio=True)
    return Clip(audio, rate, name)


def _of_mapping(audio: Mapping[str, Any], rate: float | None, name: str) -> Clip:
    for key in _SAMPLES:
        if key in audio:
            if (own := audio.get(_RATE, rate)) is None:
                raise AudioError(f"{name}: is a dictionary without {_RATE!r}; add the rate of its samples, in Hz")
            return Clip(audio[key], own, name)
    for key in ("bytes", "path"):
        if is_file(audio.get(key)):
            return Clip(audio[key], None, str(audio.get("path") or name))
    raise AudioError(
        f"{name}: is a dictionary of {', '.join(map(repr, audio)) or 'nothing'}; "
        f"give {{'array': samples, {_RATE!r}: Hz}} or {{'bytes': content of a file}}"
    )


def _is_pair(audio: object) -> bool:
    """Whether it is gradio's (rate, samples)."""
    return (
        isinstance(audio, tuple)
        and len(audio) == 2
        and isinstance(audio[0], (int, float, np.integer, np.floating))
        and not is_file(audio[1])
    )


def _mono(samples: object, rate: float, name: str, limits: AudioLimits) -> NDArray[np.floating[Any]]:
    """Samples of gradio, [samples] or [samples, channels], integers or of full scale ±1, as mono of full scale ±1."""
    array = array_of(samples, name)
    if (largest := _LARGEST_INTEGER.get(array.dtype.name)) is not None:
        array = (array / largest).astype(np.float32)
    if array.ndim != 2 or array.dtype.kind != "f":
        return array
    if array.shape[0] < array.shape[1]:
        raise AudioError(
            f"{name}: has the shape {list(array.shape)}, expected [samples, channels]; transpose it, with samples.T"
        )
    limits.check_rate(rate, name)
    limits.check_size(array.shape[0], array.shape[1], rate, name)
    mixer = Mixer(rate)
    mixed = mixer.mix(array)
    mixer.check(array.shape[1], name)
    return mixed
