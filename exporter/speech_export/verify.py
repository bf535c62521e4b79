"""The exported bundle against the torch model, in numbers: log-probabilities, and tokens of greedy and beam search."""

import sys
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import SpeechEncoderDecoderModel

from speech_runtime import OnnxSpeechSeq2Seq
from speech_runtime.bundle import EncoderFacts, Verification
from speech_runtime.generation.config import GenerationSettings

from .errors import VerificationError
from .oracle import Oracle
from .settings import Limits

BEAMS = 4
_NEW_TOKENS = 32
_CLIPS = 4
_LARGE = 10.0
"""A log-probability of this size may differ by twice as much as one of 0: float32 has so many digits, no more."""

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class VerificationAudio:
    """Model input to verify on, and what it is.

    Attributes:
        description: of the audio, for the manifest.
        inputs: float32 [batch, samples] or [batch, time, features].
        attention_mask: int64 [batch, samples or time].
    """

    description: str
    inputs: NDArray[np.float32]
    attention_mask: NDArray[np.int64]


def generated_features(encoder: EncoderFacts, seed: int = 0) -> VerificationAudio:
    """Random features in a padded batch, for an encoder whose feature extractor is not at hand."""
    generator = np.random.default_rng(seed)
    longest = min(encoder.min_length + 150 * encoder.stride, encoder.max_length or sys.maxsize)
    lengths = np.linspace(encoder.min_length, longest, _CLIPS).astype(np.int64)[:, None]
    mask = (np.arange(longest) < lengths).astype(np.int64)
    features = generator.standard_normal((*mask.shape, encoder.feature_size or 1)) * mask[:, :, None]
    return VerificationAudio("random features", features.astype(np.float32), mask)


def generated_audio(shortest: int, sampling_rate: int, seed: int = 0) -> list[Samples]:
    """Noise and tones in bursts, for where no speech is at hand.

    Args:
        shortest: samples of the shortest clip at least.
        sampling_rate: Hz.
        seed: of the noise.

    Returns:
        Clips of different, odd lengths around two seconds, float32 [samples].
    """
    generator = np.random.default_rng(seed)
    clips = []
    for clip in range(_CLIPS):
        time = np.arange(max(shortest, int(sampling_rate * (0.9 + 0.57 * clip)) + clip)) / sampling_rate
        tone = np.sin(2 * np.pi * (110 * 2**clip) * time * (1 + 0.1 * np.sin(2 * np.pi * 2 * time)))
        bursts = np.maximum(np.sin(2 * np.pi * 3 * time), 0)
        clips.append((0.1 * bursts * (tone + generator.standard_normal(time.size))).astype(np.float32))
    return clips


def verify(
    reference: SpeechEncoderDecoderModel, exported: OnnxSpeechSeq2Seq, audio: VerificationAudio, limits: Limits
) -> Verification:
    """Compare the tokens of greedy and beam search, and the log-probabilities of every token along them.

    Raises:
        VerificationError: beyond `limits`; says what differs by how much.
    """
    facts = exported.manifest.decoder
    new_tokens = min(_NEW_TOKENS, (facts.max_positions or sys.maxsize) - 1)
    oracle = Oracle(reference, audio.inputs, audio.attention_mask)
    encoded = exported.encode(audio.inputs, audio.attention_mask)
    agreement, differences, in_proportion = {}, [], []
    for beams in (1, BEAMS):
        search: GenerationSettings = {"num_beams": beams, "num_return_sequences": 1, "max_new_tokens": new_tokens}
        expected = oracle.generate(**search)
        found = exported.generate(encoder_outputs=encoded, **search)
        agreement[beams] = token_agreement(expected, found)
        logits = torch.from_numpy(exported.forward(encoder_outputs=encoded, decoder_input_ids=expected).logits)
        logprobs = oracle.logprobs(expected)
        error = (logprobs - torch.log_softmax(logits, dim=-1)).abs()
        differences.append(float(error.max()))
        in_proportion.append(float((error / (1 + logprobs.abs() / _LARGE)).max()))
    result = Verification(
        audio=audio.description,
        clips=len(audio.inputs),
        max_logprob_difference=float(np.max(differences)),
        greedy_agreement=agreement[1],
        beam_agreement=agreement[BEAMS],
        beams=BEAMS,
    )
    _judge(result, float(np.max(in_proportion)), limits)
    return result


def token_agreement(expected: NDArray[np.int64], found: NDArray[np.int64]) -> float:
    """The share of positions with the same token; a shorter array counts as if it were padded with something else."""
    length = max(expected.shape[1], found.shape[1])
    padded = [
        np.pad(sequences, ((0, 0), (0, length - sequences.shape[1])), constant_values=filler)
        for sequences, filler in ((expected, -1), (found, -2))
    ]
    return float((padded[0] == padded[1]).mean())


def _judge(result: Verification, difference: float, limits: Limits) -> None:
    problems = []
    if not difference <= limits.logprob_difference:  # NaN is a problem too
        problems.append(
            f"log-probabilities differ by up to {result.max_logprob_difference:.2g}, the limit is "
            f"{limits.logprob_difference:.2g} (--tolerance)"
        )
    for search, agreement in (("greedy", result.greedy_agreement), (f"{BEAMS} beams", result.beam_agreement)):
        if agreement < limits.agreement:
            problems.append(
                f"only {agreement:.2%} of the tokens are the same ({search}), the limit is {limits.agreement:.2%} "
                "(--min-agreement)"
            )
    if problems:
        raise VerificationError(f"the exported graphs do not say what the torch model says: {'; '.join(problems)}")
