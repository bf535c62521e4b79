"""Feature extractors, equal to those of transformers: samples to model input. Each kind has a file."""

from .cohere_asr import CohereAsrExtractor
from .extractor import EXTRACTORS, FeatureExtractor, check_fit, feature_extractor_of, read_feature_extractor
from .parakeet import ParakeetExtractor
from .seamless import SeamlessExtractor
from .spectrogram import SpectrogramExtractor
from .speech_to_text import SpeechToTextExtractor
from .speecht5 import SpeechT5Extractor
from .waveform import WaveformExtractor
from .whisper import WhisperExtractor

__all__ = [
    "EXTRACTORS",
    "CohereAsrExtractor",
    "FeatureExtractor",
    "ParakeetExtractor",
    "SeamlessExtractor",
    "SpectrogramExtractor",
    "SpeechT5Extractor",
    "SpeechToTextExtractor",
    "WaveformExtractor",
    "WhisperExtractor",
    "check_fit",
    "feature_extractor_of",
    "read_feature_extractor",
]
