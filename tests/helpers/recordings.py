"""One recording in every container that can be read, made in memory, and the samples it decodes to."""

import io
from functools import cache

import numpy as np
import soundfile

RATE = 16000
CONTAINERS = (
    ("WAV", "PCM_16"),
    ("WAV", "GSM610"),
    ("WAVEX", "PCM_24"),
    ("RF64", "PCM_16"),
    ("W64", "PCM_16"),
    ("AIFF", "PCM_16"),
    ("AU", "PCM_16"),
    ("AU", "G721_32"),
    ("CAF", "PCM_16"),
    ("CAF", "ALAC_16"),
    ("NIST", "PCM_16"),
    ("SVX", "PCM_16"),
    ("HTK", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
)
"""Format and subtype, as libsndfile names them."""

NAMES = ["-".join(container) for container in CONTAINERS]


@cache
def recording(container: str, subtype: str, seconds: float = 3) -> bytes:
    """A file of noise at 16 kHz, whose every part is another one."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(int(RATE * seconds))
    file = io.BytesIO()
    soundfile.write(file, noise, RATE, format=container, subtype=subtype)
    return file.getvalue()


class Forward(soundfile.SoundFile):  # type: ignore[misc]  # it has no types
    """libsndfile alone, which does not seek: some codecs cannot."""

    def seekable(self) -> bool:
        """It is not."""
        return False


def heard(content: bytes) -> np.ndarray:
    """Return the samples that libsndfile decodes from a whole file: float32 [samples]."""
    found = []
    with Forward(io.BytesIO(content)) as file:
        while len(block := file.read(2**16, dtype="float32", always_2d=True)):
            found.append(block.mean(axis=1))
    return np.concatenate(found)
