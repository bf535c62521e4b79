"""Reading of audio files with libsndfile, block by block."""

from typing import Any

import numpy as np

from ..errors import AudioError
from ..install_hints import import_audio_library
from .checks import Samples, prepare
from .containers import CONVERT, DamagedError, Extent, extent_of
from .limits import AudioLimits
from .mixing import Mixer
from .sources import AudioFile, Source, SourceReader, file_name, is_regular, open_source

_BLOCK = 2**16
"""Number of frames to decode at a time."""

_UNKNOWN_LENGTH = 2**62
"""libsndfile reports more frames than this where the file does not state their number."""

_CHECKED_BY_LIBSNDFILE = {"HTK"}
"""Formats whose size libsndfile compares with the declared one itself."""

_SAMPLE_BYTES = dict.fromkeys(("PCM_S8", "PCM_U8", "ULAW", "ALAW"), 1)
_SAMPLE_BYTES |= {"PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}
_FORMATS = "wav, rf64, w64, aiff, iff, caf, au, sph, htk, flac, ogg, opus and mp3"
"""All formats that are supported: they can be read, and checked for completeness."""
_UNKNOWN_FORMAT = (
    f"cannot be read as audio: its format is unknown. Supported formats are {_FORMATS}. Convert it with: "
    f"{CONVERT}; raw samples without a header with: ffmpeg -f s16le -ar RATE -ac CHANNELS -i FILE FILE.wav"
)
_EMPTY = f"cannot be read as audio: it has 0 bytes; copy it again. Supported formats are {_FORMATS}"


def duration(file: AudioFile) -> float:
    """Return the seconds of audio that a file's header states.

    0 for pipes and open files, which can be read only once, and if the header cannot be read: the error is raised when
    the whole file is read.
    """
    if not is_regular(file):
        return 0.0
    try:
        return float(import_audio_library("soundfile").info(file).duration)
    except Exception:  # any error occurs again when the file is read
        return 0.0


AUDIO_SUFFIXES = frozenset(
    (
        *(".aac", ".aif", ".aifc", ".aiff", ".amr", ".au", ".caf", ".flac", ".m4a", ".mp3", ".oga", ".ogg", ".opus"),
        *(".rf64", ".snd", ".sph", ".w64", ".wav", ".webm", ".wma"),
    )
)
"""Suffixes of the audio files in a directory, in lower case; a few are there to be refused by name, not passed over."""


def read_audio(file: AudioFile, sampling_rate: int, limits: AudioLimits | None = None) -> Samples:
    """Read an audio file, mix it to mono and resample it.

    The formats are wav, rf64, w64, aiff, iff, caf, au, sph, htk, flac, ogg, opus and mp3.

    Returns:
        float32 [samples] at `sampling_rate` Hz, full scale ±1.

    Raises:
        AudioError: The file is missing, not audio, incomplete, silent, or exceeds `limits`.
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
        if "://" in name:
            raise AudioError(f"{name}: is an address, and only files are read; download it first") from error
        raise AudioError(f"{name}: cannot be read as audio: there is no such file; check its name") from error
    except IsADirectoryError as error:
        raise AudioError(
            f"{name}: cannot be read as audio: it is a directory; give its files, such as {name}/*.wav"
        ) from error
    except Exception as error:  # an open file may raise any error of its library
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise AudioError(f"{name}: cannot be read as audio: {reason}") from error
    return prepare(samples, rate, sampling_rate, name, limits)


def _decode(source: Source, limits: AudioLimits) -> tuple[Samples, int]:
    """Decode a file: return the mean of its channels as float32 [samples], and its rate in Hz.

    Raises:
        AudioError: The file exceeds the limits, or its channels cancel each other out.
        DamagedError: The file is incomplete.
    """
    if source.size == 0:
        raise DamagedError(_EMPTY)
    extent, soundfile = extent_of(source), import_audio_library("soundfile")
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
    """Return a decoder that never seeks: `SoundFile` does so after each block, which some codecs do not support."""

    class Forward(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no types
        def seekable(self) -> bool:
            return False

    if isinstance(source.content, int) and (extent is None or extent.replaced is None):
        return Forward(source.content, closefd=False)
    return Forward(SourceReader(source, extent.replaced if extent else None))


def _check_kind(opened: Any, extent: Extent | None) -> None:
    """Refuse formats whose completeness cannot be checked."""
    mp3_elsewhere = opened.subtype.startswith("MPEG") and opened.format != "MP3"
    if mp3_elsewhere or (extent is None and opened.format not in _CHECKED_BY_LIBSNDFILE):
        raise DamagedError(
            f"has the format {opened.format_info}, {opened.subtype_info}, whose completeness cannot be checked; "
            f"convert it with: {CONVERT}"
        )


def _read(opened: Any, limits: AudioLimits, name: str) -> Samples:
    """Read all blocks and return the mean of the channels, float32 [samples]."""
    block, mixer = np.empty((_BLOCK, opened.channels), dtype=np.float32), Mixer(opened.samplerate)
    mixed, count = [np.zeros(0, dtype=np.float32)], 0
    while len(read := opened.read(out=block)):
        mixed.append(mixer.mix(read))
        count += len(read)
        limits.check_size(count, opened.channels, opened.samplerate, name)
    mixer.check(opened.channels, name)
    return np.concatenate(mixed)


def _check_whole(read: int, declared: int, extent: Extent, frame_bytes: int) -> None:
    """Compare the number of decoded samples with the number that the container declares.

    Raises:
        DamagedError: Fewer samples were decoded.
    """
    least = max(extent.frames, declared if extent.counted else 0)
    if extent.data_bytes is not None and frame_bytes:
        least = max(least, extent.data_bytes // frame_bytes)
    if extent.frames > read and not extent.counted:
        raise DamagedError(
            f"does not state its number of frames, and {read:,} of {least:,} samples could be decoded; add it with: "
            "ffmpeg -i FILE -c copy whole.mp3"
        )
    if read < least:
        raise DamagedError(
            f"is damaged or truncated: {read:,} of {least:,} samples could be decoded; copy it again, or convert it "
            f"with: {CONVERT}"
        )
