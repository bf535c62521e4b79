"""Short noise to compare a bundle with torch on: a few dozen frames instead of the thousands of generated audio."""

from matrix import clip_lengths, padded_batch
from speech_export.verification.evaluation_audio import AudioSet, Batch
from speech_runtime.bundle.model_facts import EncoderFacts


def short_audio(encoder: EncoderFacts) -> AudioSet:
    """Return one padded batch of three clips of noise; the shortest clip that the encoder takes is among them."""
    lengths = clip_lengths(encoder)
    batch = Batch(*padded_batch(encoder, lengths), (None,) * len(lengths))
    return AudioSet("short noise", (batch,), speech=False)
