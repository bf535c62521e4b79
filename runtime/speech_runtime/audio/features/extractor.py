"""The interface of feature extractors, the table of them, and reading one from `preprocessor_config.json`."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...bundle.loading import Bundle, read_configuration
from ...bundle.manifest import PREPROCESSOR_CONFIG
from ...bundle.model_facts import EncoderFacts
from ...dataclass_json import FieldError, from_json
from ...errors import BundleError
from .. import Samples
from .cohere_asr import CohereAsrExtractor
from .parakeet import ParakeetExtractor
from .seamless import SeamlessExtractor
from .spectrogram import SpectrogramExtractor
from .speech_to_text import SpeechToTextExtractor
from .speecht5 import SpeechT5Extractor
from .waveform import WaveformExtractor
from .whisper import WhisperExtractor


class FeatureExtractor(Protocol):
    """Turns clips into one padded batch of model input, equal to the extractor of the same kind in transformers."""

    @property
    def sampling_rate(self) -> int:
        """Sampling rate of the clips in Hz."""

    @property
    def width(self) -> int | None:
        """Features per frame; None where the input is the waveform."""

    def input_length(self, samples: int, name: str = "the clip") -> int:
        """Return the length of a clip's model input without padding, in samples or feature frames.

        Args:
            samples: Number of samples of the clip.
            name: Name of the clip in errors.

        Raises:
            AudioError: The clip is too short or too long to be analysed.
        """

    def check_level(self, samples: Samples, name: str) -> None:
        """Check that the features of a clip keep its content.

        Raises:
            AudioError: They do not; the message has the reason.
        """

    def __call__(self, clips: Sequence[Samples]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Analyse, normalise and pad clips.

        Args:
            clips: float32 [samples] each, at `sampling_rate`, full scale ±1.

        Returns:
            float32 [batch, samples] or [batch, time, width], and the attention mask int64 [batch, samples or time].

        Raises:
            AudioError: A clip is too short or too long to be analysed.
        """


EXTRACTORS: Mapping[str, type[FeatureExtractor]] = {
    "ASTFeatureExtractor": SpectrogramExtractor,
    "CohereAsrFeatureExtractor": CohereAsrExtractor,
    "ParakeetFeatureExtractor": ParakeetExtractor,
    "SeamlessM4TFeatureExtractor": SeamlessExtractor,
    "Speech2TextFeatureExtractor": SpeechToTextExtractor,
    "SpeechT5FeatureExtractor": SpeechT5Extractor,
    "Wav2Vec2FeatureExtractor": WaveformExtractor,
    "WhisperFeatureExtractor": WhisperExtractor,
}
"""Extractors by the `feature_extractor_type` that transformers writes. Each is a frozen dataclass; its fields are the
settings that change the features, with transformers' defaults."""


def read_feature_extractor(path: Path) -> FeatureExtractor:
    """Read a `preprocessor_config.json`.

    Raises:
        BundleError: It cannot be read, or has a type or a value that this release does not support.
    """
    config = read_configuration(path)
    kind = config.get("feature_extractor_type")
    extractor = EXTRACTORS.get(str(kind))
    if extractor is None:
        raise BundleError(
            f"{path.name} describes a feature extractor of type {str(kind)[:80]}; this release knows "
            f"{', '.join(EXTRACTORS)}; export the model without it, and give generate() model input instead of audio"
        )
    known = {field.name for field in fields(extractor)}  # type: ignore[arg-type]  # a protocol cannot require fields
    try:
        return from_json(extractor, {name: value for name, value in config.items() if name in known})
    except (FieldError, BundleError) as error:
        raise BundleError(f"{path.name}, {kind}: {error}") from None


def feature_extractor_of(bundle: Bundle) -> FeatureExtractor | None:
    """Return the feature extractor of a bundle; None for a bundle that takes model input only.

    Raises:
        BundleError: This release does not support it, or it does not fit the encoder.
    """
    if not bundle.has(PREPROCESSOR_CONFIG):
        return None
    extractor = read_feature_extractor(bundle.path(PREPROCESSOR_CONFIG))
    check_fit(extractor, bundle.manifest.encoder)
    return extractor


def check_fit(extractor: FeatureExtractor, encoder: EncoderFacts) -> None:
    """Check that `extractor` makes the input that `encoder` takes.

    Raises:
        BundleError: It does not; the message names both inputs.
    """
    if extractor.width != encoder.feature_size:
        raise BundleError(
            f"the feature extractor makes {_describe(extractor.width)}, the encoder takes "
            f"{_describe(encoder.feature_size)}; export the model with the extractor that it was trained with"
        )


def _describe(width: int | None) -> str:
    return "waveforms" if width is None else f"frames of {width} features"
