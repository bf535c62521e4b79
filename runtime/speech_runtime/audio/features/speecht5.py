"""Waveforms as model input: SpeechT5."""

from dataclasses import dataclass

from .waveform import WaveformExtractor


@dataclass(frozen=True)
class SpeechT5Extractor(WaveformExtractor):
    """Equal to transformers' `SpeechT5FeatureExtractor` called with `audio` and `padding=True`.

    Only the defaults differ from `WaveformExtractor`. Its mel spectrograms are the targets of speech synthesis.
    """

    return_attention_mask: bool = True
    do_normalize: bool = False
