"""Feature extractors, equal to those of transformers: samples to model input. Each kind has a file."""

from .extractor import EXTRACTORS, FeatureExtractor, check_fit, feature_extractor_of, read_feature_extractor
from .seamless import SeamlessExtractor
from .spectrogram import SpectrogramExtractor
from .speech_to_text import SpeechToTextExtractor
from .waveform import WaveformExtractor
from .whisper import WhisperExtractor

__all__ = [
    "EXTRACTORS",
    "FeatureExtractor",
    "SeamlessExtractor",
    "SpectrogramExtractor",
    "SpeechToTextExtractor",
    "WaveformExtractor",
    "WhisperExtractor",
    "check_fit",
    "feature_extractor_of",
    "read_feature_extractor",
]
