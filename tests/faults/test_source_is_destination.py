"""Test exports whose OUT is their own source, under any name: a correct result or a refusal; the source stays whole."""

import hashlib
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from conftest import CHECKPOINT, CLIPS, Pair
from faults.interrupted import command, interrupt
from handmade_bundle import make_bundle
from speech_export.cli.export import main
from speech_export.tensorrt import add_engines as engines
from speech_export.tensorrt.build import BuildOptions
from speech_runtime import Bundle, OnnxSpeechSeq2Seq

KILLS, MANY_KILLS = 3, 60


def hashes(directory: Path) -> dict[str, str]:
    files = (path for path in sorted(directory.iterdir()) if path.is_file())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def run(*arguments: object) -> Any:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CHECKPOINT, tmp_path / "checkpoint"))


def link_to(directory: Path) -> Path:
    link = directory.with_name("link")
    link.symlink_to(directory)
    return link


NAMES: dict[str, Callable[[Path], object]] = {
    "itself": lambda directory: directory,
    "slash": lambda directory: f"{directory}/",
    "around": lambda directory: f"{directory.parent}/./{directory.name}/../{directory.name}",
    "link": link_to,
}


@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)], ids=["plain", "overwrite"])
@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_is_not_replaced_by_its_bundle(name: str, overwrite: tuple[str, ...], checkpoint: Path) -> None:
    before = hashes(checkpoint)
    refused = run(checkpoint, "-o", NAMES[name](checkpoint), *overwrite)
    assert refused.exit_code == 1
    assert "is not a bundle, and is not replaced" in refused.stderr
    assert hashes(checkpoint) == before
    assert {path.name for path in checkpoint.parent.iterdir()} <= {"checkpoint", "link"}


@pytest.mark.parametrize("extra", [(), ("--precision", "int8"), ("--engines",)], ids=["fp32", "int8", "engines"])
@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_is_no_source_of_itself(name: str, extra: tuple[str, ...], digits: Pair, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(digits.directory, tmp_path / "bundle"))
    before = hashes(bundle)
    refused = run(bundle, "-o", NAMES[name](bundle), "--overwrite", *extra)
    assert refused.exit_code == 1
    assert "is a bundle already; give the checkpoint that it was exported from" in refused.stderr
    assert hashes(bundle) == before
    assert Bundle.open(bundle).manifest == digits.exported.manifest


@pytest.mark.usefixtures("traced_once")
def test_a_bundle_that_shares_files_with_the_checkpoint_is_replaced(checkpoint: Path, tmp_path: Path) -> None:
    """Hard links: what is written is new, and the old name of a file keeps its bytes."""
    bundle, before = make_bundle(tmp_path / "bundle"), hashes(checkpoint)
    for name in ("config.json", "preprocessor_config.json", "generation_config.json", "tokenizer.json"):
        (bundle / name).unlink(missing_ok=True)
        os.link(checkpoint / name, bundle / name)
    done = run(checkpoint, "-o", bundle, "--overwrite")
    assert done.exit_code == 0, done.output
    assert hashes(checkpoint) == before
    assert Bundle.open(bundle).manifest.source == str(checkpoint)
    assert not any(path.samefile(checkpoint / path.name) for path in bundle.iterdir() if path.name in before)


def test_engines_of_a_bundle_of_hard_links_leave_the_other_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(tensorrt: Any, graph: Path, ranges: Any, engine: Path, *_: Any) -> None:
        engine.write_text(graph.name)

    monkeypatch.setattr(engines, "build_engine", build)
    bundle = make_bundle(tmp_path / "bundle", target="tensorrt")
    twin = Path(shutil.copytree(bundle, tmp_path / "twin", copy_function=os.link))
    before = hashes(bundle)
    library: Any = SimpleNamespace(flavor="tensorrt_rtx", version="1", capabilities=(), module=None)
    engines.add_engines(twin, library, BuildOptions())
    assert hashes(bundle) == before
    assert Bundle.open(bundle).manifest.engines == ()
    assert len(Bundle.open(twin).manifest.engines) == 1


@pytest.mark.usefixtures("traced_once")
@pytest.mark.parametrize("kills", [KILLS, pytest.param(MANY_KILLS, marks=pytest.mark.full)])
def test_a_bundle_within_its_checkpoint(kills: int, checkpoint: Path, references: dict[Path, str]) -> None:
    """It is allowed; a kill at any moment leaves the checkpoint whole, and the next run removes the remains."""
    before, moments = hashes(checkpoint), random.Random(kills)  # noqa: S311 - of a test
    target = checkpoint / "bundle"
    for _ in range(kills):
        ended = interrupt(command("export", checkpoint, "-o", target), signal.SIGKILL, moments.uniform(2, 12))
        assert ended.code in (-signal.SIGKILL, 0)
        assert hashes(checkpoint) == before
        if target.exists():
            Bundle.open(target)
            shutil.rmtree(target)
    done = run(checkpoint, "-o", target)
    assert done.exit_code == 0, done.output
    assert hashes(checkpoint) == before
    assert [path.name for path in checkpoint.iterdir() if path.is_dir()] == ["bundle"]
    clip = CLIPS / "02-espeak-us.wav"
    assert OnnxSpeechSeq2Seq.from_pretrained(target).transcribe(clip) == references[clip]
