"""Audio of any kind to mono float32 samples at the model's rate; heard whole, or refused."""

from .checks import Samples, prepare
from .clips import Audio, Clip, clip_of, is_clip
from .limits import AudioLimits
from .reading import read_audio
from .sources import AudioFile

__all__ = [
    "Audio",
    "AudioFile",
    "AudioLimits",
    "Clip",
    "Samples",
    "clip_of",
    "is_clip",
    "prepare",
    "read_audio",
]
