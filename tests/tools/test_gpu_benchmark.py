"""Test the benchmark for GPUs on a CPU: the whole command on a tiny model, and what it refuses."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

import run_gpu
from compare import Outcome
from composites import composite
from conftest import ExportOnce
from gpu_results import latency_table, slug
from handmade_bundle import make_bundle
from operator_profiles import last_run
from operators import Operator
from peers.protocol import FOLDER, Answer, Job, Planned, Sample
from peers.transformers_torch import Transformers
from prepare import RECIPES
from speech_runtime import Bundle
from speech_runtime.bench.options import Case
from weightless import pack

TINY = Case(seconds=0.1, batch=2, beams=3, tokens=5)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint without weights."""
    path, model = tmp_path_factory.mktemp("configuration"), composite("bert")
    model.config.save_pretrained(path)
    model.generation_config.save_pretrained(path)
    return path


def test_the_whole_command_on_a_cpu(
    checkpoint: Path, export_once: ExportOnce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = export_once("bert", composite("bert"))
    monkeypatch.setattr(run_gpu, "CASES", (TINY, Case(0.1, 1, 1, 5)))
    monkeypatch.setattr(run_gpu, "_cores", lambda: 1)
    flags = ["--device", "cpu", "--dtype", "float32", "--repeats", "2", "--results", tmp_path / "results"]
    flags += [
        "--bundle",
        bundle,
        "--model",
        checkpoint,
        "--without",
        "transformers float32, static cache, torch.compile",
    ]
    done = CliRunner().invoke(run_gpu.main, [str(flag) for flag in flags], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    (table,), (data,) = (sorted((tmp_path / "results").glob(f"*.{kind}")) for kind in ("md", "json"))
    text = table.read_text()
    assert "| seconds × batch, beams | transformers float32 | speech-export |" in text
    rows = [line.split("|") for line in text.splitlines() if line.startswith(("| 0.1 × 2, 3 ", "| 0.1 × 1, greedy "))]
    assert len(rows) == 2
    for row in rows:
        for cell in row[2:4]:
            assert all(float(milliseconds.replace(",", "")) > 0 for milliseconds in cell.split(" / "))
    found = json.loads(data.read_text())
    counted = {graph: sum(each["count"] for each in kinds) for graph, kinds in found["operators"].items()}
    assert list(counted) == ["encoder", "decoder_with_past"]
    for graph, count in counted.items():
        assert f"## {graph}: {count} nodes" in text
        assert count > 20
    assert found["machine"]["gpu"] is None


def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    done = CliRunner().invoke(run_gpu.main, ["--device", "cuda:9", "--build", str(tmp_path)])
    assert done.exit_code == 1
    assert "this benchmark needs an NVIDIA GPU: " in done.output
    assert not list(tmp_path.iterdir())


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(run_gpu.main, ["--device", "cpu", "--bundle", str(tmp_path)])
    assert (done.exit_code, "has no bundle.json, so it is not a bundle" in done.output) == (1, True)
    assert not list(tmp_path.iterdir())


def test_every_contender_has_a_file_and_a_device(tmp_path: Path) -> None:
    found = run_gpu.contenders(tmp_path, tmp_path, "cuda:1", "float16", repeats=3)
    assert [contender.variant for contender in found] == ["float16@cuda:1", "float16@cuda:1+static+compile", "cuda:1"]
    for contender in found:
        assert (FOLDER / f"{contender.module.replace('.', '/')}.py").is_file()
        assert contender.cases == tuple(Planned(case, 3) for case in run_gpu.CASES)
    assert "configuration" in RECIPES


@pytest.mark.parametrize("variant", ["float32@cpu", "float32@cpu+static"])
def test_transformers_makes_up_weights_and_keeps_to_the_case(
    variant: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    peer = Transformers(Job(str(checkpoint), variant, ()))
    sample = peer.run(TINY, np.random.default_rng(0).standard_normal((2, 1600), dtype=np.float32))
    assert len(peer._calls["decoder"]) == TINY.tokens
    assert 0 < sample.encoder < sample.utterance
    assert 0 < sample.per_token < sample.utterance


def test_an_archive_is_unpacked_and_without_one_the_reference_shape_is_exported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, exported = tmp_path / "reference-shape-half.tar.xz", []

    def export(model: str, target: Path, **settings: int) -> None:
        target.mkdir()
        exported.append((model, settings))

    reference = SimpleNamespace(archive=archive, model=lambda: "model", settings={"a": 1})
    monkeypatch.setattr(run_gpu, "REFERENCE", reference)
    monkeypatch.setattr(run_gpu, "export", export)
    for _ in range(2):
        assert run_gpu._bundle(None, tmp_path) == tmp_path / "reference-cuda-fp16"
    assert exported == [("model", {"a": 1})]
    pack(make_bundle(tmp_path / "bundle"), archive)
    for given in (None, archive):
        found = run_gpu._bundle(given, tmp_path)
        assert found == tmp_path / "reference-shape-half" / "bundle"
        Bundle.open(found)


def test_the_table_names_cases_and_leaves_out_who_did_not_run() -> None:
    case, greedy = Case(10, 8, 5, 40), Case(30, 1, 1, 40)
    answer = Answer(1.0, 1, ((Sample(0.0302, 0.00396, 0.2023),), (Sample(0.0219, None, 1.2),)))
    found = {"ours": Outcome(None, (case, greedy), (answer,)), "theirs": Outcome("it does not compile")}
    assert latency_table(found, (case, greedy, Case(1)))[2:] == [
        "| 10 × 8, 5 | 202 / 30.2 / 3.96 |",
        "| 30 × 1, greedy | 1,200 / 21.9 / – |",
        "| 1 × 1, 5 | – / – / – |",
    ]


def test_files_are_named_after_the_gpu() -> None:
    assert slug("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"


def test_only_the_last_run_of_a_profile_counts() -> None:
    def node(kind: str, ts: int, dur: int) -> dict[str, object]:
        return {"cat": "Node", "name": f"n_{kind}_kernel_time", "ts": ts, "dur": dur, "args": {"op_name": kind}}

    runs = [{"cat": "Session", "name": "model_run", "ts": ts, "dur": 9} for ts in (100, 200)]
    fence = {"cat": "Node", "name": "n_fence_before", "ts": 201, "dur": 5, "args": {"op_name": "Conv"}}
    events = [
        node("Conv", 101, 9000),
        runs[0],
        fence,
        node("Add", 202, 500),
        node("Conv", 204, 2000),
        node("Add", 206, 500),
        runs[1],
    ]
    assert last_run(events) == [Operator("Conv", 1, 2.0), Operator("Add", 2, 1.0)]
