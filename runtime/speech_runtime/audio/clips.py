"""The forms in which users give audio: files, samples, and dictionaries and tuples of samples and their rate."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import AudioError
from .assumed_rate import warn_of_assumed_rate
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
    """One clip, in any form.

    Attributes:
        audio: File or samples.
        rate: Rate of samples in Hz; None for files, which state their own, and for the model's rate.
        name: Name in errors.
        from_gradio: If true, samples may be integers and have several channels.
    """

    audio: AudioFile | ArrayLike
    rate: float | None
    name: str
    from_gradio: bool = False

    def seconds(self, sampling_rate: int) -> float:
        """Return the approximate length; samples without a rate have `sampling_rate`; 0 if unknown before reading."""
        if is_file(self.audio):
            return duration(self.audio)
        try:
            return len(self.audio) / (sampling_rate if self.rate is None else self.rate)  # type: ignore[arg-type]
        except Exception:  # not samples, no valid rate, or an error of the object itself: `load` reports it
            return 0.0

    def load(self, sampling_rate: int, limits: AudioLimits | None = None) -> Samples:
        """Read or check the clip and return float32 [samples] at `sampling_rate` Hz.

        Warns:
            UserWarning: Samples without a rate look as if it were not `sampling_rate`.

        Raises:
            AudioError: It cannot be transcribed.
        """
        if is_file(self.audio):
            return read_audio(self.audio, sampling_rate, limits)
        if self.rate is None:
            warn_of_assumed_rate(self.audio, sampling_rate, self.name)
        samples = self.audio
        if self.from_gradio and self.rate is not None:
            samples = _mono(samples, self.rate, self.name, AudioLimits.of(limits))
        return prepare(samples, self.rate, sampling_rate, self.name, limits)


def is_clip(audio: object) -> bool:
    """Return whether `audio` is one clip, not a list of clips."""
    return is_file(audio) or isinstance(audio, Mapping) or _is_pair(audio) or getattr(audio, "ndim", 2) < 2


def clip_of(audio: Any, rate: float | None, name: str) -> Clip:
    """Make a clip of `audio` in any form; `rate` is for samples that come without one.

    Raises:
        AudioError: It is a dictionary without samples or rate.
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
    """Return whether `audio` is gradio's (rate, samples)."""
    return (
        isinstance(audio, tuple)
        and len(audio) == 2
        and isinstance(audio[0], (int, float, np.integer, np.floating))
        and not is_file(audio[1])
    )


def _mono(samples: object, rate: float, name: str, limits: AudioLimits) -> NDArray[np.floating[Any]]:
    """Convert gradio's [samples] or [samples, channels], integers or full scale ±1, to mono with full scale ±1."""
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
