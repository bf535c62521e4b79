"""Reads audio in any form as mono float32 samples at the model's rate; incomplete audio is refused."""

from .checks import Samples, array_of, prepare
from .clips import Audio, Clip, clip_of, is_clip
from .limits import AudioLimits
from .reading import AUDIO_SUFFIXES, read_audio
from .sources import AudioFile

__all__ = [
    "AUDIO_SUFFIXES",
    "Audio",
    "AudioFile",
    "AudioLimits",
    "Clip",
    "Samples",
    "array_of",
    "clip_of",
    "is_clip",
    "prepare",
    "read_audio",
]
