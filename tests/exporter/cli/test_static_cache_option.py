"""Test the checks of `--static-cache` and `--cuda-graphs` that run before anything is exported or loaded."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from conftest import CHECKPOINT
from handmade_bundle import make_bundle
from speech_export.cli.export import main
from speech_runtime.cli.bench import main as bench
from speech_runtime.cli.transcribe import main as transcribe


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--static-cache", "64"], "a static cache is for TensorRT"),
        (["--static-cache", "64", "--target", "cuda"], "leave --static-cache out, or give --target tensorrt"),
        (["--static-cache", "1", "--target", "tensorrt"], "has 1 tokens; a search needs at least 2"),
        (["--static-cache", "9999", "--target", "tensorrt"], "set --static-cache to 64 or less"),
        (["--growing-cache"], "--growing-cache is for --target cuda, whose cache has another form by default"),
        (["--growing-cache", "--static-cache", "64", "--target", "tensorrt"], "for tensorrt leave it out"),
        (["--growing-cache", "--static-cache", "64", "--target", "cuda"], "a cache cannot be static and grow"),
    ],
)
def test_a_cache_that_cannot_be_had_is_refused_at_once(arguments: list[str], message: str, tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    result = CliRunner().invoke(main, [str(CHECKPOINT), "-o", str(output), *arguments])
    assert result.exit_code == 1
    assert message in result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("device", "sizes", "message"),
    [
        ("cpu", 2, "--cuda-graphs is 2, and device 'cpu' records no CUDA graphs; set --device cuda"),
        ("tensorrt", 2, "--cuda-graphs is 2, and device 'tensorrt' records no CUDA graphs; set --device cuda"),
        ("cuda", -1, "--cuda-graphs is -1; give a number of sizes"),
        ("engines", -1, "--cuda-graphs is -1; give a number of sizes"),
    ],
)
def test_what_records_no_cuda_graphs_says_so(device: str, sizes: int, message: str, tmp_path: Path) -> None:
    bundle = str(make_bundle(tmp_path / "bundle", target="cuda"))
    flags = ["--device", device, "--cuda-graphs", str(sizes)]
    for command, arguments in ((transcribe, [bundle, "clip.wav", *flags]), (bench, [bundle, *flags])):
        result = CliRunner().invoke(command, arguments)
        assert result.exit_code == 1
        assert message in result.output
