"""Audio to transcribe: a file, or noise of a given length."""

import numpy as np
from numpy.typing import NDArray

from ..audio import Samples, read_audio
from ..audio.features import feature_extractor_of
from ..backends.tensorrt.profiles import FEATURE_RATE, WAVEFORM_RATE
from ..bundle.loading import Bundle
from ..bundle.manifest import PREPROCESSOR_CONFIG
from ..errors import BenchError

_LEVEL = 0.1
"""Standard deviation of the noise at full scale 1; about as loud as speech."""


class BenchAudio:
    """Makes batches for a bundle: clips for its feature extractor, or model input if it has none."""

    def __init__(self, bundle: Bundle, file: str | None = None) -> None:
        """Read the feature extractor of `bundle`, and the audio `file` if there is one.

        Raises:
            BundleError: This release does not support the feature extractor.
            AudioError: The file cannot be read.
            BenchError: A file is given, and the bundle takes features, not audio.
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
        """Length of the file in seconds; None without a file."""
        return None if self._file is None else self._file.size / self.rate

    def input_length(self, seconds: float) -> int:
        """Return the length of the model input for `seconds` of audio, in samples or feature frames.

        Raises:
            AudioError: The audio is too short or too long for the feature extractor.
        """
        samples = self._samples(seconds)
        return samples if self._extractor is None else self._extractor.input_length(samples, f"{seconds:g} s")

    def batch(self, seconds: float, batch: int) -> list[Samples]:
        """Return clips, float32 [samples], or feature frames [time, features] if the bundle takes only those."""
        if self._file is not None:
            return [self._file] * batch
        random, length, width = np.random.default_rng(0), self._samples(seconds), self._encoder.feature_size
        if self._extractor is None and width is not None:
            return list(random.standard_normal((batch, length, width), dtype=np.float32))
        scale = _LEVEL if self._extractor is not None else 1.0  # unit variance, as an extractor would make it
        return list(random.standard_normal((batch, length), dtype=np.float32) * np.float32(scale))

    def model_input(self, clips: list[Samples]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the model input [batch, …] for clips of one length, and its mask [batch, samples or time]."""
        if self._extractor is not None:
            return self._extractor(clips)
        values = np.stack(clips)
        return values, np.ones(values.shape[:2], dtype=np.int64)

    def _samples(self, seconds: float) -> int:
        return self._file.size if self._file is not None else round(seconds * self.rate)
