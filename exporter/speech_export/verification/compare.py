"""Compare an exported bundle with the torch model: tokens of searches, log-probabilities, words."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import SpeechEncoderDecoderModel

from speech_runtime import OnnxSpeechSeq2Seq
from speech_runtime.bundle.manifest import Verification
from speech_runtime.generation.output import GenerateOutput

from ..bundle_writer.generation_settings import only_tokens
from ..errors import VerificationError
from ..limits import Limits, OnStage
from .evaluation_audio import AudioSet
from .reference import BEAMS, Expectation, best_words, expectations
from .self_agreement import SelfAgreement, difference, in_proportion, larger, self_agreement
from .word_errors import edit_distance, word_error_rate

NEW_TOKENS = 32


@dataclass
class Comparison:
    """Sums and differences over batches.

    Attributes:
        equal: Number of equal tokens and of all tokens of free searches, by number of beams.
        text_errors: Number of tokens that greedy search replaces, leaves out or adds, and of all its tokens in torch.
        next_equal: Number of positions with the same best next token after the same tokens, and of all positions.
        differences: Differences of the log-probabilities of torch's best words, float32 arrays.
        largest: Largest difference of any log-probability that is compared.
        in_proportion: Largest difference in proportion to the log-probability.
        texts: Reference text, torch's transcript and the bundle's transcript of each clip.
        frames: Number of frames with audio in torch and in the bundle, for each clip where they differ.
    """

    equal: dict[int, list[int]] = field(default_factory=lambda: {1: [0, 0], BEAMS: [0, 0]})
    text_errors: list[int] = field(default_factory=lambda: [0, 0])
    next_equal: list[int] = field(default_factory=lambda: [0, 0])
    differences: list[NDArray[np.float32]] = field(default_factory=list)
    largest: float = 0.0
    in_proportion: float = 0.0
    texts: list[tuple[str, str, str]] = field(default_factory=list)
    frames: list[tuple[int, int]] = field(default_factory=list)

    def note(self, expected: Tensor, found: Tensor) -> Tensor:
        """Record the differences of log-probabilities, and return them in the shape of both."""
        differences = difference(expected, found)
        self.in_proportion = larger(self.in_proportion, float(in_proportion(expected, found).max()))
        self.largest = larger(self.largest, float(differences.max()))
        return differences

    @property
    def agreement(self) -> float:
        """Share of positions of torch's sequences with the same best next token."""
        return self.next_equal[0] / max(self.next_equal[1], 1)

    @property
    def text_agreement(self) -> float:
        """Share of equal tokens in the texts of greedy search, by edit distance; at least 0."""
        return max(1 - self.text_errors[0] / max(self.text_errors[1], 1), 0.0)

    def shortfalls(self, limits: Limits) -> list[str]:
        """Return where too few tokens are equal for a bundle below float32, as parts of an error."""
        shares = {
            "tokens are the same (next token)": (self.agreement, limits.agreement),
            "text is the same (greedy)": (self.text_agreement, limits.text_agreement),
        }
        return [
            f"only {share:.2%} of the {what}, the limit is {limit:.2%} (--min-agreement)"
            for what, (share, limit) in shares.items()
            if share < limit
        ]

    @property
    def drift(self) -> float:
        """Mean difference of log-probabilities."""
        return float(np.concatenate(self.differences).mean())


def verify(
    model: SpeechEncoderDecoderModel,
    exported: OnnxSpeechSeq2Seq,
    audio: AudioSet,
    new_tokens: int,
    limits: Limits,
    on_stage: OnStage,
) -> Verification:
    """Compare a float32 bundle with torch; if they differ too much, compare torch with itself before refusing it.

    Args:
        model: Torch model.
        exported: Bundle.
        audio: Audio to measure on.
        new_tokens: Maximum number of new tokens of a search.
        limits: Largest differences allowed.
        on_stage: Function that is called with the name of each stage.

    Raises:
        VerificationError: The bundle differs by more than the limits, see `judge`.
    """
    expected = partial(expectations, model, audio, new_tokens, whole=True, template=exported.manifest.prompt)
    result = compare(expected(), exported)
    verified = verification(result, audio.description, audio.clips)
    try:
        judge(result, verified, limits, free_searches=True)
    except VerificationError:
        on_stage("comparing torch with itself")
        own = self_agreement(model, expected())
        verified = replace(verified, torch_rounding=own.rounding)
        judge(result, verified, limits, free_searches=True, own=own)
    return verified


def compare(expected: Iterable[Expectation], exported: OnnxSpeechSeq2Seq, *, search: bool = True) -> Comparison:
    """Compare on every batch; without `search`, only the next tokens after torch's own tokens.

    The searches of `exported` ignore its stored settings, as the expected ones did.
    """
    result = Comparison()
    exported.generation_config = only_tokens(exported.generation_config)
    for each in expected:
        encoded = exported.encode(each.batch.inputs, each.batch.attention_mask)
        if each.frames is not None:
            pairs = zip(each.frames.tolist(), exported.frame_mask(encoded).sum(axis=1).tolist(), strict=True)
            result.frames += [(of_torch, found) for of_torch, found in pairs if of_torch != found]
        logits = torch.from_numpy(exported.forward(encoder_outputs=encoded, decoder_input_ids=each.tokens).logits)
        logprobs = torch.log_softmax(logits, dim=-1)
        best = logprobs.argmax(dim=-1).numpy()
        expected_best = each.logprobs.argmax(dim=-1).numpy() if each.words is None else each.words[:, :, 0].numpy()
        result.next_equal[0] += int((best == expected_best)[each.spoken].sum())
        result.next_equal[1] += int(each.spoken.sum())
        found_logprobs = logprobs if each.words is None else logprobs.gather(-1, each.words)
        error = result.note(each.logprobs, found_logprobs)
        if each.words is None:
            error = error.gather(-1, best_words(each.logprobs)[1])
        result.differences.append(error.numpy()[each.spoken].ravel())
        if search:
            found = exported.generate(
                encoder_outputs=encoded, decoder_input_ids=each.prompts, **each.search, return_dict_in_generate=True
            )
            for index, count in enumerate(_equal(each.tokens, found.sequences)):
                result.equal[each.beams][index] += count
            if each.words is None and (same := _same_rows(each.tokens, found.sequences)).any():
                result.note(each.scores[same], torch.from_numpy(found.sequences_scores[same]))
            if each.beams == 1:
                for index, count in enumerate(_text_errors(each, found)):
                    result.text_errors[index] += count
            if each.beams == BEAMS:
                result.texts += _texts(exported, each, found.sequences)
    return result


def _same_rows(expected: NDArray[np.int64], found: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which utterances have the same tokens: bool [batch]."""
    if expected.shape != found.shape:
        return np.zeros(len(expected), dtype=np.bool_)
    return np.asarray((expected == found).all(axis=1))


def verification(result: Comparison, description: str, clips: int) -> Verification:
    """Return a comparison in the manifest's terms."""
    differences = np.concatenate(result.differences)
    references, of_torch, of_bundle = zip(*result.texts, strict=True) if result.texts else ((), (), ())
    return Verification(
        audio=description,
        clips=clips,
        max_logprob_difference=result.largest,
        greedy_agreement=result.equal[1][0] / max(result.equal[1][1], 1),
        beam_agreement=result.equal[BEAMS][0] / max(result.equal[BEAMS][1], 1),
        beams=BEAMS,
        token_agreement=result.agreement,
        mean_logprob_difference=float(differences.mean()),
        p99_logprob_difference=float(np.quantile(differences, 0.99)),
        word_error_rate=word_error_rate(references, of_bundle) if references else None,
        reference_word_error_rate=word_error_rate(references, of_torch) if references else None,
    )


def judge(
    result: Comparison, verified: Verification, limits: Limits, *, free_searches: bool, own: SelfAgreement | None = None
) -> None:
    """Check a comparison against `limits`.

    Args:
        result: Result of `compare`.
        verified: The same in the manifest's terms.
        limits: Largest differences allowed.
        free_searches: If true, apply `limits.agreement` to free searches, else to each next token alone, and
            `limits.text_agreement` to the texts: in a quantised model, one different token may change all later ones.
        own: Agreement of torch with itself, if measured. Its rounding is allowed for; if torch contradicts itself,
            the error names torch instead of the graphs.

    Raises:
        VerificationError: Something differs by more than the limits; the error lists the differences.
    """
    problems, allowed = [], limits.logprob_difference
    if result.frames:  # however small the other differences are
        problems.append("a clip has {1} frames in the encoder's mask, {0} in torch's".format(*result.frames[0]))
    if own is not None:
        allowed = max(
            allowed, limits.torch_roundings * own.rounding_in_proportion
        )  # `max` keeps the first if the second is NaN
    if not result.in_proportion <= allowed:  # NaN is a problem too
        problem = (
            f"log-probabilities differ by up to {verified.max_logprob_difference:.2g}, the limit is "
            f"{limits.logprob_difference:.2g} (--tolerance)"
        )
        if own is not None:
            problem += _own_rounding(own, limits)
        problems.append(problem)
    agreements = {"greedy": verified.greedy_agreement, f"{BEAMS} beams": verified.beam_agreement}
    problems += (
        [
            f"only {agreement:.2%} of the tokens are the same ({search}), the limit is {limits.agreement:.2%} "
            "(--min-agreement)"
            for search, agreement in agreements.items()
            if agreement < limits.agreement
        ]
        if free_searches
        else result.shortfalls(limits)
    )
    if problems and own is not None and not own.caching_in_proportion <= allowed:
        raise VerificationError(
            f"the torch model does not agree with itself in transformers {version('transformers')}: log-probabilities "
            f"differ by up to {own.caching_in_proportion:.2g} between decoding all tokens at once and "
            "one after the other with a cache. No export can be equal to both; install a release of transformers in "
            "which they agree. Compared with it as it is, " + "; ".join(problems)
        )
    if problems:
        raise VerificationError(f"the exported graphs differ from the torch model: {'; '.join(problems)}")


def _own_rounding(own: SelfAgreement, limits: Limits) -> str:
    """Return the part of an error about torch's own rounding."""
    if math.isnan(own.rounding):
        return "; torch's own rounding is unknown, since the model cannot be computed in float64"
    allowance = f"; {limits.torch_roundings:g} times as much is allowed" if limits.torch_roundings else ""
    return f"; torch's own, float32 against float64 on the same audio, differ by {own.rounding:.2g}{allowance}"


def _equal(expected: NDArray[np.int64], found: NDArray[np.int64]) -> tuple[int, int]:
    length = max(expected.shape[1], found.shape[1])
    padded = [
        np.pad(sequences, ((0, 0), (0, length - sequences.shape[1])), constant_values=filler)
        for sequences, filler in ((expected, -1), (found, -2))
    ]
    return int((padded[0] == padded[1]).sum()), padded[0].size


def _text_errors(each: Expectation, found: GenerateOutput) -> tuple[int, int]:
    """Return the edit distance of all texts, and the number of torch's tokens; prompts and end tokens do not count."""
    errors = tokens = 0
    first = each.prompt_length
    for row, spoken in enumerate(each.spoken):
        of_torch = each.tokens[row][spoken][first:].tolist()
        ended = found.finished[row] == "end"
        errors += edit_distance(of_torch, found.sequences[row, first : found.lengths[row] - ended].tolist())
        tokens += len(of_torch)
    return errors, tokens


def _texts(exported: OnnxSpeechSeq2Seq, each: Expectation, found: NDArray[np.int64]) -> list[tuple[str, str, str]]:
    """Return the reference text, torch's transcript and the bundle's of each clip whose text is known."""
    tokenizer = exported.tokenizer
    if tokenizer is None:
        return []

    def decoded(tokens: NDArray[np.int64]) -> Sequence[str]:
        texts: list[str] = tokenizer.decode_batch(tokens.tolist(), skip_special_tokens=True)
        return texts

    return [
        (reference, of_torch, of_bundle)
        for reference, of_torch, of_bundle in zip(each.batch.texts, decoded(each.tokens), decoded(found), strict=True)
        if reference is not None
    ]
