"""Exports that many tests share: each is made once a run, whichever worker asks first."""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from transformers import SpeechEncoderDecoderModel

from composites import composite
from speech_export import export
from speech_runtime import OnnxSpeechSeq2Seq, SessionOptions

torch.set_num_threads(1)  # two workers, one core each

REPOSITORY = Path(__file__).resolve().parents[1]
CHECKPOINT = REPOSITORY / "examples" / "digits" / "checkpoint"
CLIPS = REPOSITORY / "examples" / "digits" / "audio"
ONE_THREAD = SessionOptions(intra_op_threads=1)
FSDD = REPOSITORY.parent / "shared" / "data" / "fsdd.tar.gz"


@dataclass(frozen=True)
class Pair:
    """A torch model and what was exported from it."""

    reference: SpeechEncoderDecoderModel
    exported: OnnxSpeechSeq2Seq
    directory: Path


@pytest.fixture(scope="session")
def export_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, SpeechEncoderDecoderModel | Path], Path]:
    """Export under a name, or find what another worker has exported under it."""
    shared = tmp_path_factory.getbasetemp()
    if shared.name.startswith("popen-gw"):  # a worker's own folder, within that of the run
        shared = shared.parent

    def once(name: str, model: SpeechEncoderDecoderModel | Path) -> Path:
        target = shared / f"bundle-{name}"
        with FileLock(f"{target}.lock"):
            if not target.exists():
                export(model, target)
        return target

    return once


@pytest.fixture(scope="session")
def pair(export_once: Callable[[str, SpeechEncoderDecoderModel | Path], Path]) -> Callable[[str], Pair]:
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
def digits(export_once: Callable[[str, SpeechEncoderDecoderModel | Path], Path]) -> Pair:
    """The bundled model and its bundle."""
    directory = export_once("digits", CHECKPOINT)
    reference = SpeechEncoderDecoderModel.from_pretrained(CHECKPOINT).eval()
    return Pair(reference, OnnxSpeechSeq2Seq.from_pretrained(directory, options=ONE_THREAD), directory)


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
