"""Audio files and arrays to mono float32 samples at the model's rate."""

import re
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

import numpy as np
from numpy.typing import NDArray

from .errors import AudioError

Samples = NDArray[np.float32]

AudioFile = str | Path | BinaryIO
"""Where it is, or an open one that can be read from any position."""

_DATA_CHUNK = re.compile(r"^data : (?P<declared>\d+) \(should be (?P<there>\d+)\)", re.MULTILINE)
_STREAMED_SIZE = 0x7FFFF000
"""Who writes to a pipe does not know the size, and declares one from here on."""


def is_file(audio: object) -> TypeGuard[AudioFile]:
    """Whether it is a file, and not samples."""
    return isinstance(audio, (str, Path)) or hasattr(audio, "read")


def file_name(file: AudioFile) -> str:
    """What to call a file in errors."""
    return str(file) if isinstance(file, (str, Path)) else str(getattr(file, "name", "the open file"))


def duration(file: AudioFile) -> float:
    """Seconds of audio, as a file's header has it; 0 where it cannot be read: who reads the file is told why."""
    if not isinstance(file, (str, Path)):
        return 0.0
    soundfile = _require("soundfile")
    try:
        return float(soundfile.info(file).duration)
    except (OSError, soundfile.SoundFileError):
        return 0.0


def read_audio(file: AudioFile, sampling_rate: int) -> Samples:
    """Read an audio file (whatever libsndfile reads: wav, flac, ogg, mp3, …), mix it to mono and resample it.

    Returns:
        float32 [samples] at `sampling_rate` Hz, full scale ±1.

    Raises:
        AudioError: the file is missing, not audio, or has nothing in it to transcribe.
    """
    soundfile, name = _require("soundfile"), file_name(file)
    try:
        with soundfile.SoundFile(file) as opened:
            _check_whole(opened.extra_info, name)
            samples, rate = opened.read(dtype="float32", always_2d=True), opened.samplerate
    except (OSError, soundfile.SoundFileError) as error:
        missing = isinstance(file, (str, Path)) and not Path(file).exists()
        reason = "there is no such file" if missing else str(error)
        raise AudioError(f"{name}: cannot be read as audio: {reason}") from error
    return prepare(samples.mean(axis=1), rate, sampling_rate, name)


def _check_whole(log: str, name: str) -> None:
    """Refuse a file that ends early: libsndfile only notes it in its log, and reads what is there."""
    cut = _DATA_CHUNK.search(log)
    if cut and int(cut["there"]) < int(cut["declared"]) < _STREAMED_SIZE:
        size = f"{int(cut['there']):,} of {int(cut['declared']):,} bytes"
        raise AudioError(f"{name}: is truncated: it has {size} of audio; copy it again")


def prepare(samples: object, rate: int, sampling_rate: int, name: str = "audio") -> Samples:
    """Check samples and resample them from `rate` to `sampling_rate` Hz.

    Args:
        samples: floating-point [samples], full scale ±1.
        rate: of `samples`, Hz.
        sampling_rate: of the result, Hz.
        name: what to call the audio in errors.

    Raises:
        AudioError: another rank or dtype, empty, silent, or not finite; a rate that is none.
    """
    array = np.asarray(samples)
    if rate <= 0:
        raise AudioError(f"{name}: has a sampling rate of {rate} Hz; give the rate that it was recorded at")
    if array.ndim != 1:
        raise AudioError(f"{name}: expected mono samples [samples], got shape {list(array.shape)}; mix the channels")
    if not np.issubdtype(array.dtype, np.floating):
        raise AudioError(
            f"{name}: expected floating-point samples of full scale ±1, got {array.dtype}; "
            "convert first, 16-bit integers for example with samples.astype('float32') / 32768"
        )
    if array.size == 0:
        raise AudioError(f"{name}: is empty: it has no samples")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as such
        array = array.astype(np.float32, copy=False)
    if not np.isfinite(array).all():
        raise AudioError(f"{name}: has {np.count_nonzero(~np.isfinite(array)):,} samples that are NaN or infinite")
    if array.min() == array.max():
        raise AudioError(f"{name}: is silent: all of its {array.size:,} samples are {array[0]:g}")
    if rate == sampling_rate:
        return array
    resampled: Samples = _require("soxr").resample(array, rate, sampling_rate, quality="HQ")
    return resampled


def _require(library: str) -> Any:
    try:
        return __import__(library)
    except ImportError as error:
        raise AudioError(f"{library} is needed here: pip install 'speech-export[audio]'") from error
