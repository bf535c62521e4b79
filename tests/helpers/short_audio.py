"""Short noise to compare a bundle with torch on: a few dozen frames instead of the thousands of generated audio."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from matrix import clip_lengths, padded_batch
from speech_export import export_bundle
from speech_export.verification.evaluation_audio import AudioSet, Batch, audio_set
from speech_runtime.audio.features import FeatureExtractor
from speech_runtime.bundle.model_facts import EncoderFacts


def short_audio(encoder: EncoderFacts) -> AudioSet:
    """Return one padded batch of three clips of noise; the shortest clip that the encoder takes is among them."""
    lengths = clip_lengths(encoder)
    batch = Batch(*padded_batch(encoder, lengths), (None,) * len(lengths))
    return AudioSet("short noise", (batch,), speech=False)


@contextmanager
def verified_on_short_audio() -> Iterator[None]:
    """Verify exports on a few dozen frames of noise instead of two seconds, which takes 7 s for a tiny model.

    The bundled model is verified on the audio that a user's model is verified on.
    """

    def audio(
        encoder: EncoderFacts,
        extractor: FeatureExtractor | None,
        files: Sequence[str | Path],
        directory: str | Path | None = None,
    ) -> AudioSet:
        given = files or directory is not None
        return audio_set(encoder, extractor, files, directory) if given else short_audio(encoder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_bundle, "audio_set", audio)
        yield
