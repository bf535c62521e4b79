"""Samples to model input, as the checkpoint's feature extractor does it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .audio import Samples
from .errors import BundleError

_KNOWN = "Wav2Vec2FeatureExtractor"


@dataclass(frozen=True)
class FeatureExtractor:
    """Padding and normalisation, equal to transformers' `Wav2Vec2FeatureExtractor` with `padding=True`."""

    sampling_rate: int
    do_normalize: bool
    return_attention_mask: bool
    padding_value: float

    @classmethod
    def from_file(cls, path: Path) -> "FeatureExtractor":
        """Read `preprocessor_config.json`.

        Raises:
            BundleError: another kind of extractor.
        """
        config = json.loads(path.read_text(encoding="utf-8"))
        kind = config.get("feature_extractor_type", _KNOWN)
        if kind != _KNOWN:
            raise BundleError(f"{path.name} describes a {kind}; this release knows {_KNOWN}")
        return cls(
            sampling_rate=int(config.get("sampling_rate", 16000)),
            do_normalize=bool(config.get("do_normalize", True)),
            return_attention_mask=bool(config.get("return_attention_mask", False)),
            padding_value=float(config.get("padding_value", 0.0)),
        )

    def __call__(self, clips: Sequence[Samples]) -> tuple[Samples, NDArray[np.int64]]:
        """Pad clips to the longest of them and normalise them.

        Args:
            clips: float32 [samples] each, at `sampling_rate`.

        Returns:
            float32 [batch, samples], and the attention mask int64 [batch, samples]: all ones where the checkpoint was
            trained without one (its padding is then part of the signal, as in transformers).
        """
        lengths = np.array([clip.size for clip in clips])
        longest = int(lengths.max())
        mask = (np.arange(longest) < lengths[:, None]).astype(np.int64)
        values = np.full((len(clips), longest), self.padding_value, dtype=np.float32)
        for row, clip in zip(values, clips, strict=True):
            row[: clip.size] = clip
        if not self.return_attention_mask:
            mask[:] = 1
            lengths[:] = longest
        if self.do_normalize:
            for row, length in zip(values, lengths, strict=True):
                row[:length] = (row[:length] - row[:length].mean()) / np.sqrt(row[:length].var() + 1e-7)
        return values, mask
