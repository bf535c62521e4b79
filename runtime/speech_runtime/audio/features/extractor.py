"""What every feature extractor is, which ones there are, and how one is read from `preprocessor_config.json`."""

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
from .seamless import SeamlessExtractor
from .spectrogram import SpectrogramExtractor
from .speech_to_text import SpeechToTextExtractor
from .waveform import WaveformExtractor


class FeatureExtractor(Protocol):
    """Turns clips into one padded batch of model input, equal to the extractor of the same kind in transformers."""

    @property
    def sampling_rate(self) -> int:
        """Of the clips, Hz."""

    @property
    def width(self) -> int | None:
        """Features of one frame; None where the input is the waveform itself."""

    def input_length(self, samples: int, name: str = "the clip") -> int:
        """How much model input a clip makes, padding not counted: samples, or feature frames.

        Args:
            samples: of the clip.
            name: what to call the clip in errors.

        Raises:
            AudioError: the clip is too short or too long to be analysed.
        """

    def check_level(self, samples: Samples, name: str) -> None:
        """Check that what is in a clip does not vanish in its features.

        Raises:
            AudioError: it does; says why.
        """

    def __call__(self, clips: Sequence[Samples]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Analyse, normalise and pad clips.

        Args:
            clips: float32 [samples] each, at `sampling_rate`, full scale ±1.

        Returns:
            float32 [batch, samples] or [batch, time, width], and the attention mask int64 [batch, samples or time].

        Raises:
            AudioError: a clip is too short or too long to be analysed.
        """


EXTRACTORS: Mapping[str, type[FeatureExtractor]] = {
    "ASTFeatureExtractor": SpectrogramExtractor,
    "SeamlessM4TFeatureExtractor": SeamlessExtractor,
    "Speech2TextFeatureExtractor": SpeechToTextExtractor,
    "Wav2Vec2FeatureExtractor": WaveformExtractor,
}
"""By the `feature_extractor_type` that transformers writes. Each is a frozen dataclass, whose fields are those of the
configuration that change what transformers computes, with transformers' defaults."""


def read_feature_extractor(path: Path) -> FeatureExtractor:
    """Read a `preprocessor_config.json`.

    Raises:
        BundleError: it cannot be read, is of a kind that this release does not know, or has a value that it does not
            follow.
    """
    config = read_configuration(path)
    kind = config.get("feature_extractor_type")
    extractor = EXTRACTORS.get(str(kind))
    if extractor is None:
        raise BundleError(
            f"{path.name} describes a feature extractor of type {str(kind)[:80]}; this release knows "
            f"{', '.join(EXTRACTORS)}; export the model without it, and give generate() model input instead of audio"
        )
    known = {field.name for field in fields(extractor)}  # type: ignore[arg-type]  # a protocol cannot ask for fields
    try:
        return from_json(extractor, {name: value for name, value in config.items() if name in known})
    except (FieldError, BundleError) as error:
        raise BundleError(f"{path.name}, {kind}: {error}") from None


def feature_extractor_of(bundle: Bundle) -> FeatureExtractor | None:
    """The feature extractor of a bundle; None where it takes ready-made input.

    Raises:
        BundleError: it is none that this release knows, or does not fit the encoder.
    """
    if not bundle.has(PREPROCESSOR_CONFIG):
        return None
    extractor = read_feature_extractor(bundle.path(PREPROCESSOR_CONFIG))
    check_fit(extractor, bundle.manifest.encoder)
    return extractor


def check_fit(extractor: FeatureExtractor, encoder: EncoderFacts) -> None:
    """Check that `extractor` makes what `encoder` takes.

    Raises:
        BundleError: it does not; names both.
    """
    if extractor.width != encoder.feature_size:
        raise BundleError(
            f"the feature extractor makes {_describe(extractor.width)}, the encoder takes "
            f"{_describe(encoder.feature_size)}; export the model with the extractor that it was trained with"
        )


def _describe(width: int | None) -> str:
    return "waveforms" if width is None else f"frames of {width} features"
