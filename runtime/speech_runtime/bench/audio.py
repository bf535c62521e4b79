"""What is transcribed: a file, or noise of a given length."""

import numpy as np
from numpy.typing import NDArray

from ..audio import Samples, read_audio
from ..audio.features import feature_extractor_of
from ..bundle.loading import Bundle
from ..bundle.manifest import PREPROCESSOR_CONFIG
from ..errors import BenchError
from .options import FEATURE_RATE, WAVEFORM_RATE

_LEVEL = 0.1
"""Standard deviation of the noise, full scale 1: about as loud as speech."""


class BenchAudio:
    """Makes batches for a bundle: clips for its feature extractor, or model input where it has none."""

    def __init__(self, bundle: Bundle, file: str | None = None) -> None:
        """Read the feature extractor of `bundle`, and the audio `file` where there is one.

        Raises:
            BundleError: the feature extractor is none that this release knows.
            AudioError: the file cannot be read.
            BenchError: there is a file, and the bundle takes ready-made features only.
        """
        self._encoder = bundle.manifest.encoder
        self._extractor = feature_extractor_of(bundle)
        if self._extractor is not None:
            self.rate = self._extractor.sampling_rate
        else:
            self.rate = WAVEFORM_RATE if self._encoder.feature_size is None else FEATURE_RATE
            if file is not None and self._encoder.feature_size is not None:
                raise BenchError(
                    f"{bundle.directory} has no {PREPROCESSOR_CONFIG} and takes features, not audio: leave out --audio"
                )
        self._file = None if file is None else read_audio(file, self.rate)

    @property
    def file_seconds(self) -> float | None:
        """How long the file is; None without one."""
        return None if self._file is None else self._file.size / self.rate

    def input_length(self, seconds: float) -> int:
        """Samples or feature frames of model input that `seconds` of audio make.

        Raises:
            AudioError: they are too short or too long for the feature extractor.
        """
        samples = self._samples(seconds)
        return samples if self._extractor is None else self._extractor.input_length(samples, f"{seconds:g} s")

    def batch(self, seconds: float, batch: int) -> list[Samples]:
        """Clips float32 [samples]; feature frames [time, features] where the bundle takes nothing else."""
        if self._file is not None:
            return [self._file] * batch
        random, length, width = np.random.default_rng(0), self._samples(seconds), self._encoder.feature_size
        if self._extractor is None and width is not None:
            return list(random.standard_normal((batch, length, width), dtype=np.float32))
        scale = _LEVEL if self._extractor is not None else 1.0  # what an extractor would make of it: unit variance
        return list(random.standard_normal((batch, length), dtype=np.float32) * np.float32(scale))

    def model_input(self, clips: list[Samples]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Model input [batch, …] of clips of one length, and its mask [batch, samples or time]."""
        if self._extractor is not None:
            return self._extractor(clips)
        values = np.stack(clips)
        return values, np.ones(values.shape[:2], dtype=np.int64)

    def _samples(self, seconds: float) -> int:
        return self._file.size if self._file is not None else round(seconds * self.rate)
