"""Test `speech-export --precision` on the bundled model in int8 and int4, and the options that it refuses."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from conftest import CHECKPOINT, CLIPS, ONE_THREAD, Pair
from speech_export.cli.export import main
from speech_runtime import Bundle, OnnxSpeechSeq2Seq


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.usefixtures("traced_once")
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_the_bundled_model_says_the_same(
    precision: str, digits: Pair, references: dict[Path, str], tmp_path: Path
) -> None:
    target = tmp_path / "bundle"
    result = run(CHECKPOINT, "-o", target, "--precision", precision, "--calibration-audio", CLIPS)
    assert result.exit_code == 0, result.output
    bundle = Bundle.open(target)
    manifest, measured = bundle.manifest, bundle.manifest.verification
    assert (manifest.precision, manifest.target) == (precision, "cpu")
    assert manifest.quantization.decoder == precision
    assert manifest.quantization.kept_float32 == ()
    assert measured.clips == len(references)
    assert measured.token_agreement >= 0.98
    assert 0 < measured.mean_logprob_difference <= measured.p99_logprob_difference <= measured.max_logprob_difference
    assert measured.word_error_rate <= measured.reference_word_error_rate + 0.02
    assert f"word error rate: {measured.word_error_rate:.2%}, torch" in result.stdout
    assert {path.name for path in target.iterdir()} == {*manifest.files, "bundle.json"}
    assert bundle.size < 0.6 * Bundle.open(digits.directory).size
    quantized = OnnxSpeechSeq2Seq.from_pretrained(target, options=ONE_THREAD)
    files = list(references)
    heard, expected = (model.transcribe(files, num_beams=4) for model in (quantized, digits.exported))
    assert sum(a == b for a, b in zip(heard, expected, strict=True)) >= len(files) - 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--precision", "int4", "--target", "tensorrt"), "int4 for tensorrt: TensorRT does not know"),
        (("--precision", "int8", "--target", "cuda"), "int8 for cuda: dynamic int8 has kernels on the CPU only; take"),
        (("--precision", "int8", "--calibration-audio", "EMPTY"), "has no audio"),
        (("--precision", "fp16"), "fp16 for cpu: CPUs compute half precision in float32"),
        (("--precision", "fp16", "--target", "cuda", "--calibration-audio", "EMPTY"), "has no audio"),
        (
            ("--precision", "int8", "--keep-float32", "*.lm_tail"),
            "'*.lm_tail' matches nothing that is converted; there are",
        ),
        (("--precision", "int8", "--min-agreement", "1.01"), "agreement is 1.01; give 0 to 1"),
    ],
)
def test_what_is_refused_leaves_nothing(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    empty = tmp_path / "EMPTY"
    empty.mkdir()
    given = [empty if argument == "EMPTY" else argument for argument in arguments]
    result = run(CHECKPOINT, "-o", tmp_path / "bundle", *given)
    assert result.exit_code != 0
    assert message in " ".join(result.stderr.split())
    assert [path.name for path in tmp_path.iterdir()] == ["EMPTY"]
