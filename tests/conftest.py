"""Fixtures and exports that many tests share; each export is made once a run, by the worker that asks first."""

import csv
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
import torch
from click.testing import CliRunner
from filelock import FileLock
from transformers import SpeechEncoderDecoderModel

from composites import composite
from native_checkpoints import save_native
from short_audio import verified_on_short_audio
from speech_export import export
from speech_export.cli.export import main
from speech_export.precision.options import PrecisionOptions
from speech_runtime import Bundle, OnnxSpeechSeq2Seq, SessionOptions, install_hints
from tally import Tally, TallyUp
from traced_once import graphs_traced_once

pytest_plugins = ["gpu_fixtures"]
torch.set_num_threads(1)  # two workers, one core each

REPOSITORY = Path(__file__).resolve().parents[1]
CHECKPOINT = REPOSITORY / "examples" / "digits" / "checkpoint"
CLIPS = REPOSITORY / "examples" / "digits" / "audio"
ONE_THREAD = SessionOptions(intra_op_threads=1)
AGAINST_TRANSFORMERS = "against transformers"
FSDD = REPOSITORY.parent / "shared" / "data" / "fsdd.tar.gz"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cases", type=int, help="so many random cases against transformers; without it 200 that never change"
    )
    parser.addoption(
        "--device",
        choices=["cpu"],
        help="where tests/gpu run in place of a GPU, to show that the tests themselves work",
    )


@dataclass(frozen=True)
class Pair:
    """A torch model and what was exported from it."""

    reference: SpeechEncoderDecoderModel
    exported: OnnxSpeechSeq2Seq
    directory: Path


@dataclass(frozen=True)
class Saved:
    """Directories of a checkpoint and of its bundle."""

    checkpoint: Path
    bundle: Path


class ExportOnce(Protocol):
    """Export under a name, or find what another worker has exported under it; see `speech_export.export`."""

    def __call__(self, name: str, model: SpeechEncoderDecoderModel | Path, **settings: Any) -> Path: ...


@pytest.fixture(autouse=True)
def installed_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let remedies name the package, and not the checkout that these tests run in."""
    monkeypatch.setattr(install_hints, "source", lambda: "speech-export")


@pytest.fixture(scope="module")
def short_verification() -> Iterator[None]:
    """Verify the exports of a module on short audio; see `verified_on_short_audio`."""
    with verified_on_short_audio():
        yield


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of a run share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if own.name.startswith("popen-gw") else own


@pytest.fixture(scope="module")
def traced_once(shared: Path) -> Iterator[None]:
    """Let the exports of a module read graphs that were traced of the same weights; see `graphs_traced_once`."""
    with graphs_traced_once(shared):
        yield


@pytest.fixture(scope="session")
def export_once(shared: Path) -> ExportOnce:
    """Each of the exports that tests share, made once."""

    def once(name: str, model: SpeechEncoderDecoderModel | Path, **settings: Any) -> Path:
        target = shared / f"bundle-{name}"
        with FileLock(f"{target}.lock"):
            if not target.exists():
                short = nullcontext() if isinstance(model, Path) else verified_on_short_audio()
                with graphs_traced_once(shared), short:
                    export(model, target, **settings)
        return target

    return once


@pytest.fixture(scope="session")
def pair(export_once: ExportOnce) -> Callable[[str], Pair]:
    """A tiny random composite with the given decoder family, and its bundle."""
    known: dict[str, Pair] = {}

    def make(family: str) -> Pair:
        if family not in known:
            model = composite(family)
            directory = export_once(family, model)
            known[family] = Pair(model, OnnxSpeechSeq2Seq.from_pretrained(directory, options=ONE_THREAD), directory)
        return known[family]

    return make


@pytest.fixture(scope="session")
def native_checkpoint(export_once: ExportOnce, shared: Path) -> Callable[..., Saved]:
    """A saved checkpoint of a tiny speech model with a decoder of its own, and its bundle; see `save_native`."""

    def make(family: str, *, whole: bool = False) -> Saved:
        name = f"whole-{family}" if whole else family
        checkpoint = shared / f"checkpoint-{name}"
        with FileLock(f"{checkpoint}.lock"):
            if not checkpoint.exists():
                checkpoint.mkdir()
                save_native(family, checkpoint, whole=whole)
        with verified_on_short_audio():
            return Saved(checkpoint, export_once(f"of-{checkpoint.name}", checkpoint))

    return make


@pytest.fixture(scope="session")
def digits(export_once: ExportOnce) -> Pair:
    """The bundled model and its bundle."""
    directory = export_once("digits", CHECKPOINT)
    reference = SpeechEncoderDecoderModel.from_pretrained(CHECKPOINT).eval()
    return Pair(reference, OnnxSpeechSeq2Seq.from_pretrained(directory, options=ONE_THREAD), directory)


@pytest.fixture(scope="session")
def digits_for_tensorrt(shared: Path) -> Path:
    """The bundle of the bundled model with graphs for TensorRT, and its engines: those of `speech-export --engines`.

    What the command said is beside it, in `digits-tensorrt.txt`.
    """
    target = shared / "digits-tensorrt"
    with FileLock(f"{target}.lock"):
        if not target.exists():
            engines = ["--engines", "--trt-flavor", "tensorrt_rtx", "--trt-compute-capability", "8.9", "--trt-tf32"]
            result = CliRunner().invoke(main, [str(CHECKPOINT), "-o", str(target), *engines])
            assert result.exit_code == 0, result.output
            target.with_suffix(".txt").write_text(result.output)
    return target


@pytest.fixture(scope="session")
def half_digits(export_once: ExportOnce) -> Bundle:
    """The bundled model in half precision, as `speech-export` makes it."""
    fp16 = PrecisionOptions(precision="fp16", target="cuda")
    return Bundle.open(export_once("digits-fp16-cuda", CHECKPOINT, precision=fp16, calibration_audio=CLIPS))


@pytest.fixture(scope="session")
def references() -> dict[Path, str]:
    """The clips of the bundled model and what they say."""
    with (CLIPS / "reference.tsv").open(newline="") as file:
        return {CLIPS / row["file"]: row["text"] for row in csv.DictReader(file, delimiter="\t")}


@pytest.fixture(scope="session")
def fsdd() -> Path:
    """The archive of real recordings; the repository does not ship it."""
    if not FSDD.exists():
        pytest.skip(f"the recordings are not there: {FSDD}")
    return FSDD


@pytest.fixture
def tally_up(record_property: Callable[[str, object], None]) -> TallyUp:
    """Have a tally shown at the end of the run, and fail where near ties are many."""

    def up(tally: Tally) -> None:
        record_property(AGAINST_TRANSFORMERS, str(tally))
        assert tally.few_ties, f"too many near ties: {tally}"

    return up


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    tallies = [
        f"{report.nodeid}: {value}"
        for report in reports
        for name, value in report.user_properties
        if name == AGAINST_TRANSFORMERS
    ]
    if tallies:
        terminalreporter.section(AGAINST_TRANSFORMERS)
        terminalreporter.write("\n".join([*sorted(tallies), ""]))
