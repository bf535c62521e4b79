"""Audio files to samples, with libsndfile, in blocks."""

from typing import Any

import numpy as np

from ..errors import AudioError
from .checks import Samples, prepare
from .containers import CONVERT, DamagedError, Extent, extent_of
from .libraries import require
from .limits import AudioLimits
from .mixing import Mixer
from .sources import AudioFile, Source, SourceReader, file_name, is_regular, open_source

_BLOCK = 2**16
"""Frames that are decoded at once."""

_UNKNOWN_LENGTH = 2**62
"""libsndfile says more frames than this where the file does not say how many there are."""

_CHECKED_BY_LIBSNDFILE = {"HTK"}
"""Formats that libsndfile itself refuses where their size is not the declared one."""

_SAMPLE_BYTES = dict.fromkeys(("PCM_S8", "PCM_U8", "ULAW", "ALAW"), 1)
_SAMPLE_BYTES |= {"PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}
_UNKNOWN_FORMAT = (
    "cannot be read as audio: it begins like none of the formats that are read (wav, flac, ogg, opus, mp3, aiff, au, "
    f"caf, w64, rf64, sph); convert it with: {CONVERT}; samples without a header (raw) with: "
    "ffmpeg -f s16le -ar RATE -ac CHANNELS -i FILE FILE.wav"
)


def duration(file: AudioFile) -> float:
    """Seconds of audio, as a file's header has it.

    0 where it cannot be read, as who reads the file is told; and where it is no regular file, which can be read once.
    """
    if not is_regular(file):
        return 0.0
    try:
        return float(require("soundfile").info(file).duration)
    except Exception:  # whatever it is, it comes again when the file is read
        return 0.0


def read_audio(file: AudioFile, sampling_rate: int, limits: AudioLimits | None = None) -> Samples:
    """Read an audio file (wav, flac, ogg, opus, mp3, aiff, au, caf, …), mix it to mono and resample it.

    Returns:
        float32 [samples] at `sampling_rate` Hz, full scale ±1.

    Raises:
        AudioError: the file is missing, not audio, not whole, beyond `limits`, or has nothing in it to transcribe.
    """
    name, limits = file_name(file), AudioLimits.of(limits)
    try:
        with open_source(file, limits) as source:
            samples, rate = _decode(source, limits)
    except AudioError:
        raise
    except DamagedError as error:
        raise AudioError(f"{name}: {error}") from error
    except FileNotFoundError as error:
        raise AudioError(f"{name}: cannot be read as audio: there is no such file") from error
    except Exception as error:  # an open file may fail with anything that its library raises
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise AudioError(f"{name}: cannot be read as audio: {reason}") from error
    return prepare(samples, rate, sampling_rate, name, limits)


def _decode(source: Source, limits: AudioLimits) -> tuple[Samples, int]:
    """Decode a whole file: its channels' mean, float32 [samples], and its rate in Hz.

    Raises:
        AudioError: it is beyond the limits, or its channels cancel each other out.
        DamagedError: it is not whole.
    """
    extent, soundfile = extent_of(source), require("soundfile")
    try:
        with _opened(soundfile, source, extent) as opened:
            _check_kind(opened, extent)
            rate, channels = opened.samplerate, opened.channels
            declared = opened.frames if opened.frames < _UNKNOWN_LENGTH else 0
            limits.check_rate(rate, source.name)
            limits.check_size(max(declared, extent.frames if extent else 0), channels, rate, source.name)
            samples = _read(opened, limits, source.name)
            _check_whole(samples.size, declared, extent or Extent(), channels * _SAMPLE_BYTES.get(opened.subtype, 0))
    except soundfile.LibsndfileError as error:
        if "not recognised" in error.error_string:
            raise DamagedError(_UNKNOWN_FORMAT) from error
        reason = error.error_string.removeprefix("Error : ").rstrip(".")
        raise DamagedError(
            f"cannot be read as audio: {reason}; it is damaged, truncated, or two files in one: copy it again"
        ) from error
    return samples, rate


def _opened(soundfile: Any, source: Source, extent: Extent | None) -> Any:
    """The decoder of a file. It only goes forward: the original seeks after each block, which some codecs cannot do."""

    class Forward(soundfile.SoundFile):  # type: ignore[misc]  # it has no types
        def seekable(self) -> bool:
            return False

    if isinstance(source.content, int) and (extent is None or extent.replaced is None):
        return Forward(source.content, closefd=False)
    return Forward(SourceReader(source, extent.replaced if extent else None))


def _check_kind(opened: Any, extent: Extent | None) -> None:
    """Refuse what cannot be known to be whole."""
    mp3_elsewhere = opened.subtype.startswith("MPEG") and opened.format != "MP3"
    if mp3_elsewhere or (extent is None and opened.format not in _CHECKED_BY_LIBSNDFILE):
        raise DamagedError(
            f"is of the format {opened.format_info}, {opened.subtype_info}, of which it is not known whether it is "
            f"whole; convert it with: {CONVERT}"
        )


def _read(opened: Any, limits: AudioLimits, name: str) -> Samples:
    """The mean of the channels, block by block: float32 [samples]."""
    block, mixer = np.empty((_BLOCK, opened.channels), dtype=np.float32), Mixer(opened.samplerate)
    mixed, count = [np.zeros(0, dtype=np.float32)], 0
    while len(read := opened.read(out=block)):
        mixed.append(mixer.mix(read))
        count += len(read)
        limits.check_size(count, opened.channels, opened.samplerate, name)
    mixer.check(opened.channels, name)
    return np.concatenate(mixed)


def _check_whole(read: int, declared: int, extent: Extent, frame_bytes: int) -> None:
    """Compare what was decoded with what the container holds.

    Raises:
        DamagedError: it is less.
    """
    least = max(extent.frames, declared if extent.counted else 0)
    if extent.data_bytes is not None and frame_bytes:
        least = max(least, extent.data_bytes // frame_bytes)
    if extent.frames > read and not extent.counted:
        raise DamagedError(
            f"does not count its frames, and {read:,} of {least:,} samples could be decoded; write the count with: "
            "ffmpeg -i FILE -c copy whole.mp3"
        )
    if read < least:
        raise DamagedError(
            f"is damaged or truncated: {read:,} of {least:,} samples could be decoded; copy it again, or convert it "
            f"with: {CONVERT}"
        )
