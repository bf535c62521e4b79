"""Test the `speech-bench` command."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from conftest import Pair
from handmade_bundle import DECODER, make_bundle
from speech_runtime.cli.bench import main

SMALL = ("--tokens", 3, "--repeats", 2, "--threads", 1, "--batch", 1)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_a_bundle_is_measured(digits: Pair, tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    result = run(digits.directory, "--quick", "--seconds", "1,0.5", "--beams", "2,1", *SMALL, "--json", file)
    assert result.exit_code == 0, result.output
    rows = [line for line in result.stdout.splitlines() if line.startswith(f"| {digits.directory.name} |")]
    cases = [[cell.strip() for cell in row.split("|")[2:7]] for row in rows]
    assert cases == [["1", "1", "2", "3", "1"], ["0.5", "1", "2", "3", "1"], ["1", "1", "1", "3", "1"]]
    assert "[3/3]" in result.stderr
    for found in json.loads(file.read_text())["measurements"]:
        parts = found["encoder"]["p50"] + found["decoder_init"]["p50"]
        assert 0 < parts < found["first_token"]["p50"] < found["utterance"]["p50"]
        assert found["encoder"]["count"] == 2
        assert found["per_token"]["count"] == 2 * 2
        assert len(found["per_token_at"]) == 2
        assert found["size"] == sum(
            path.stat().st_size for path in digits.directory.iterdir() if path.name != "bundle.json"
        )
        assert found["load_seconds"] > 0
        assert found["peak_rss_bytes"] > found["size"]


def test_a_file_gives_the_length(digits: Pair, references: dict[Path, str]) -> None:
    clip = next(iter(references))
    result = run(digits.directory, "--quick", "--audio", clip, "--beams", 1, *SMALL)
    assert result.exit_code == 0, result.output
    (row,) = [line for line in result.stdout.splitlines() if line.startswith(f"| {digits.directory.name} |")]
    samples = digits.exported.load(clip)
    assert float(row.split("|")[2]) == pytest.approx(samples.size / 16_000, rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "Missing argument 'BUNDLE...'"),
        (("nowhere",), 1, "there is no directory nowhere"),
        ((".", "--beams", "5,x"), 2, "'5,x' is not a list of numbers; separate them by commas"),
        ((".", "--beams", "1_0"), 2, "'1_0' is not a list of numbers"),
        ((".", "--repeats", "1_0"), 2, "'1_0' is not an integer; write it in the digits 0 to 9"),
        ((".", "--seconds", 0), 1, "seconds has 0.0; give seconds above 0"),
        ((".", "--json", "no/where.json"), 2, "there is no directory no; make it first"),
    ],
)
def test_what_cannot_be_measured(arguments: tuple[object, ...], code: int, message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert result.stdout == ""


def test_a_missing_file_and_a_missing_device_are_named(digits: Pair) -> None:
    assert "there is no such file" in run(digits.directory, "--audio", "nothing.wav").stderr
    assert "pip install 'speech-export[cuda]'" in run(digits.directory, "--device", "cuda").stderr


def test_remedies_are_flags_of_this_command(tmp_path: Path) -> None:
    static = replace(DECODER, cache="static", cache_length=24)
    bundles = [make_bundle(tmp_path / "any"), make_bundle(tmp_path / "static", target="tensorrt", decoder=static)]
    for bundle, tokens, most in ((bundles[0], 65, 64), (bundles[1], 25, 24)):
        refused = run(bundle, "--seconds", 1, "--tokens", tokens)
        assert refused.exit_code == 1
        assert f"set --tokens to {most} or less" in refused.stderr
    negative = run(bundles[0], "--device", "cuda", "--cuda-graphs", -1)
    assert "--cuda-graphs is -1; give a number of sizes, or 0 for no CUDA graphs" in negative.stderr
    assert "None" not in negative.stderr
