"""Test `speech-export --engines` with TensorRT-RTX, which builds engines on a CPU."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from conftest import CHECKPOINT
from handmade_bundle import make_bundle
from speech_export import ExportError
from speech_export.cli.export import main
from speech_export.tensorrt.build import build_engine
from speech_runtime import Bundle, OnnxSpeechSeq2Seq
from speech_runtime.backends.tensorrt.library import import_tensorrt
from speech_runtime.backends.tensorrt.profiles import graph_profiles
from speech_runtime.bundle.graph_io import DECODER_INIT
from speech_runtime.bundle.profile_limits import ProfileLimits

WITHOUT_EXPORT_EXTRA = """
import sys
sys.modules.update(dict.fromkeys(["torch", "transformers", "onnx", "onnx_ir", "onnxscript", "onnxruntime"]))
from speech_export.cli.export import main
main()
"""
"""None in sys.modules makes an import fail, as if nothing of it were installed."""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def copy(digits_for_tensorrt: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(digits_for_tensorrt, tmp_path / "bundle"))


def test_a_bundle_gets_engines_without_torch_and_onnx(copy: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_EXPORT_EXTRA, str(copy), "--engines", "--trt-flavor", "tensorrt_rtx"]
    limits = ["--trt-seconds", "0.1", "5", "10", "--trt-beams", "1", "4", "4"]
    result = subprocess.run([*command, *limits], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "[3/3] building the engine of decoder_with_past … " in result.stderr
    assert "up to 8 × 10 s, 4 beams, 256 tokens" in result.stdout
    bundle = Bundle.open(copy)
    other, built = bundle.manifest.engines  # those for other GPUs stay
    assert other.compute_capabilities == ("8.9",)
    assert built.compute_capabilities == ()
    assert built.limits == ProfileLimits(seconds=(0.1, 5.0, 10.0), beams=(1, 4, 4))
    assert all(bundle.path(path).stat().st_size > 100_000 for path in built.paths)
    assert OnnxSpeechSeq2Seq.from_pretrained(copy).manifest == bundle.manifest


def test_a_model_is_exported_for_tensorrt_and_with_engines(digits_for_tensorrt: Path) -> None:
    assert "verified against torch" in digits_for_tensorrt.with_suffix(".txt").read_text()
    manifest = Bundle.open(digits_for_tensorrt).manifest
    assert manifest.target == "tensorrt"
    (built,) = manifest.engines
    assert (built.compute_capabilities, built.tf32) == (("8.9",), True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("BUNDLE",), "Missing option '-o'"),
        (("nowhere", "--engines"), "Missing option '-o'"),
        (("BUNDLE", "--trt-tf32", "-o", "x"), "--trt-tf32 goes with --engines"),
        (
            ("BUNDLE", "--engines", "--trt-batch", "4", "2", "8"),
            "batch is (4, 2, 8); give (smallest, usual, largest), positive and in",
        ),
        (("BUNDLE", "--engines", "--trt-timing-cache", "times"), "leave out --trt-timing-cache"),
        (("BUNDLE", "--engines", "--trt-compute-capability", "9.0"), "does not know the compute capability '9.0'"),
        (
            (CHECKPOINT, "-o", "x", "--engines", "--trt-compute-capability", "10.0"),
            "on a machine that has this GPU (--trt-flavor tensorrt), or export with --target cuda",
        ),
        (("BUNDLE", "--engines", "--trt-flavor", "tensorrt"), "pip install 'speech-export[tensorrt]'"),
        ((CHECKPOINT, "-o", "x", "--engines", "--trt-flavor", "tensorrt"), "pip install 'speech-export[tensorrt]'"),
        ((CHECKPOINT, "-o", "x", "--engines", "--target", "cpu"), "leave --target cpu out"),
        (("FOR_CPU", "--engines"), "speech-export MODEL -o FOR_CPU --overwrite --target tensorrt --engines"),
        (("FOR_CUDA", "--engines"), "FOR_CUDA was exported for CUDA, with operators that only ONNX Runtime knows"),
    ],
)
def test_what_cannot_be_built_is_refused_before_anything_is_done(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    bundle = make_bundle(tmp_path / "BUNDLE", target="tensorrt")
    make_bundle(tmp_path / "FOR_CPU")
    make_bundle(tmp_path / "FOR_CUDA", target="cuda")
    result = run(*arguments)
    assert result.exit_code != 0
    assert message in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"BUNDLE", "FOR_CPU", "FOR_CUDA"}
    assert not (bundle / "engines").exists()


def test_a_graph_that_tensorrt_does_not_take_leaves_the_bundle_as_it_was(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", target="tensorrt")  # its inputs have other dimensions
    result = run(bundle, "--engines")
    assert "the dimension rows of input_values in encoder.onnx has no range" in result.stderr
    assert f"To try again: speech-export {bundle} --engines" in result.stderr
    assert not Bundle.open(bundle).manifest.engines


def test_ctrl_c_leaves_the_bundle_as_it_was(copy: Path) -> None:
    before = Bundle.open(copy).manifest
    command = [Path(sys.executable).parent / "speech-export", copy, "--engines", "--trt-flavor", "tensorrt_rtx"]

    def heed_ctrl_c() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs are told to ignore it

    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c) as process:
        assert process.stderr is not None
        seen = ""
        while "building the engine of encoder" not in seen:
            seen += process.stderr.read(1)
        process.send_signal(signal.SIGINT)
        assert "Interrupted" in process.stderr.read()
        assert process.wait() == 130
    assert [path.name for path in copy.parent.iterdir()] == ["bundle"]
    assert Bundle.open(copy).manifest == before
    assert [path.name for path in (copy / "engines").iterdir()] == [before.engines[0].directory]


def test_an_interruption_does_not_pass_through_tensorrt(digits_for_tensorrt: Path, tmp_path: Path) -> None:
    bundle, phases = Bundle.open(digits_for_tensorrt), list[str]()

    def interrupt(phase: str, done: int, steps: int) -> None:
        assert 0 <= done <= steps
        phases.append(phase)
        raise KeyboardInterrupt

    profiles = graph_profiles(bundle, ProfileLimits())[DECODER_INIT]
    arguments = (import_tensorrt("tensorrt_rtx"), bundle.path("decoder_init.onnx"), profiles, tmp_path / "engine")
    with pytest.raises(KeyboardInterrupt):
        build_engine(*arguments, on_step=interrupt)
    assert phases
    assert not (tmp_path / "engine").exists()


def test_a_damaged_graph_is_named(tmp_path: Path) -> None:
    graph = tmp_path / "encoder.onnx"
    graph.write_bytes(b"no graph")
    with pytest.raises(ExportError, match=r"TensorRT-RTX cannot parse encoder\.onnx"):
        build_engine(import_tensorrt("tensorrt_rtx"), graph, [{}], tmp_path / "engine")
