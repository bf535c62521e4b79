"""Test that a bundle below float32 is judged by its texts too, and not by each next token alone."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from composites import composite
from conftest import CHECKPOINT, REPOSITORY, Pair
from speech_export import ExportError, VerificationError, export
from speech_export.limits import QUANTIZED_LIMITS, Limits
from speech_export.precision.options import PrecisionOptions
from speech_export.verification.compare import Comparison, compare
from speech_export.verification.evaluation_audio import audio_set
from speech_export.verification.reference import expectations
from speech_runtime import OnnxSpeechSeq2Seq
from speech_runtime.audio.features import read_feature_extractor

AUDIO = REPOSITORY / "examples" / "digits" / "audio"


def test_next_tokens_alone_are_not_enough() -> None:
    result = Comparison(next_equal=[984, 1000], text_errors=[61, 100])
    assert result.shortfalls(QUANTIZED_LIMITS) == [
        "only 39.00% of the text is the same (greedy), the limit is 90.00% (--min-agreement)"
    ]
    assert result.shortfalls(replace(QUANTIZED_LIMITS, text_agreement=0.0)) == []
    assert Comparison(next_equal=[984, 1000], text_errors=[9, 100]).shortfalls(QUANTIZED_LIMITS) == []
    assert len(Comparison(next_equal=[5, 10], text_errors=[300, 100]).shortfalls(QUANTIZED_LIMITS)) == 2


def test_texts_are_compared_by_edit_distance(digits: Pair) -> None:
    exported = OnnxSpeechSeq2Seq.from_pretrained(digits.directory)  # its settings are changed, others' must not be
    manifest = exported.manifest
    extractor = read_feature_extractor(CHECKPOINT / "preprocessor_config.json")
    audio = audio_set(manifest.encoder, extractor, sorted(AUDIO.glob("*.wav"))[:3])
    expected = list(expectations(digits.reference, audio, 20, whole=False))
    result = compare(expected, exported)
    greedy = [each for each in expected if each.beams == 1]
    spoken = sum(int(each.spoken.sum()) - len(each.tokens) for each in greedy)  # without start tokens
    assert result.text_errors == [0, spoken]
    for each in greedy:
        each.tokens[0, 2] = other_digit(each.tokens[0, 2])
    assert compare(expected, exported).text_errors == [len(greedy), spoken]


def other_digit(token: int) -> int:
    return int(token) + 1 if token % 2 else int(token) - 1


@pytest.mark.usefixtures("traced_once")
def test_a_bundle_whose_texts_differ_is_refused(tmp_path: Path) -> None:
    int4 = PrecisionOptions(precision="int4", block_size=256)
    limits = Limits(math.inf, 0.0, text_agreement=1.0)
    with pytest.raises(VerificationError, match=r"of the text is the same \(greedy\), the limit is 100.00%"):
        export(composite("bert"), tmp_path / "bundle", precision=int4, limits=limits, audio=sorted(AUDIO.glob("*.wav")))
    assert not (tmp_path / "bundle").exists()


def test_the_limit_is_a_share() -> None:
    with pytest.raises(ExportError, match=r"text_agreement is 1.5; give 0 to 1 \(--min-agreement\)"):
        Limits(text_agreement=1.5)
