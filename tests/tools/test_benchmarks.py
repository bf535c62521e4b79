"""Test `benchmarks/`: rounds, ratios, floors, limits and tables. Nothing is timed here."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from compare import Outcome, compare, ratio
from conftest import Pair
from floors import Evidence, Floor, absences, as_table, floors
from limits import Limits, encoder_operations
from operators import Operator, operators
from peers.plain_onnx import _advance
from peers.protocol import FOLDER, Answer, Planned, Sample
from peers.registry import (
    CLIP,
    CTRANSLATE2,
    OPENVINO,
    OURS_FLOAT32,
    OURS_INT8,
    SINGLE,
    TORCH_FLOAT32,
    Contender,
    digits_contenders,
    reference_contenders,
)
from prepare import RECIPES, ensure
from prepare import main as prepare
from runtime.bench.test_bench import measurement
from speech_runtime.bench.options import Case
from tables import digits_table, hidden_table, limits_line, operators_table, reference_table

FAKE = """
from peers.protocol import Sample, serve

class Fake:
    def __init__(self, job):
        self.step, self.runs = float(job.variant), 0

    def run(self, case, clips):
        assert clips.shape == (case.batch, 16000 * case.seconds)
        self.runs += 1
        return Sample(per_token=self.step, utterance=float(self.runs))

serve(Fake)
"""


def outcome(case: Case = SINGLE, **seconds: tuple[float, ...]) -> Outcome:
    """One round a value of each metric."""
    rounds = zip(*seconds.values(), strict=True)
    answers = (Answer(1.5, 3 * 2**30, ((Sample(**dict(zip(seconds, values, strict=True))),) * 3,)) for values in rounds)
    return Outcome(None, (case,), tuple(answers))


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A peer that needs no model: a module beside the real ones, in another folder."""
    (tmp_path / "fake_peer.py").write_text(FAKE)
    monkeypatch.setattr("peers.protocol.FOLDER", f"{FOLDER}:{tmp_path}")
    return "fake_peer"


def test_contenders_take_turns_and_each_has_a_process_of_its_own(fake: str, tmp_path: Path) -> None:
    cases = (Planned(Case(1, 2), 2), Planned(Case(2, 1), 1))
    fast = Contender("fast", fake, tmp_path, cases, "0.5", warmups=3)
    slow = replace(fast, name="slow", variant="2", warmups=1)
    order: list[str] = []
    found = compare([fast, slow], rounds=2, threads=1, on_run=order.append)
    turns = [f"round {number} of 2: {name}" for number in (1, 2) for name in ("fast", "slow")]
    assert order == turns
    assert found["fast"].rounds(Case(1, 2), "per_token") == [0.5, 0.5]
    assert found["slow"].rounds(Case(1, 2), "encoder") == []
    assert found["slow"].rounds(Case(60), "per_token") == []
    # Runs are counted within a process: three that do not count, and the median of the fourth and fifth.
    assert found["fast"].rounds(Case(1, 2), "utterance") == [4.5, 4.5]
    assert found["slow"].rounds(Case(1, 2), "utterance") == [2.5, 2.5]
    assert found["slow"].rounds(Case(2, 1), "utterance") == [5, 5]
    assert ratio(found["slow"].rounds(Case(1, 2), "per_token"), found["fast"].rounds(Case(1, 2), "per_token")) == 4


def test_who_cannot_run_is_named_with_the_reason(fake: str, tmp_path: Path) -> None:
    cases = (Planned(Case(1), 1),)
    contenders = [
        Contender("no package", fake, tmp_path, cases, "1", packages=("no_such_package",)),
        Contender("no model", fake, tmp_path / "nothing", cases, "1"),
        Contender("not made", fake, tmp_path / "nothing", cases, "1", why_not="it cannot be quantised"),
        Contender("fails", fake, tmp_path, cases, "not a number"),
        Contender("runs", fake, tmp_path, cases, "1"),
    ]
    found = compare(contenders, rounds=1, threads=1, on_run=lambda _: None)
    lines = "\n".join(absences({"here": found}))
    assert "no package (here) is missing: no_such_package not installed: pip install 'speech-export[bench]'" in lines
    assert "no model (here) is missing: there is no nothing" in lines
    assert "not made (here) is missing: it cannot be quantised" in lines
    assert "fails (here) is missing: ValueError: could not convert string to float" in lines
    assert "runs" not in lines


def test_the_environment_reaches_the_peer(fake: str, tmp_path: Path) -> None:
    (tmp_path / "fake_peer.py").write_text(
        FAKE.replace("float(job.variant)", "float(__import__('os').environ['STEP'])")
    )
    contender = Contender("x", fake, tmp_path, (Planned(Case(1), 1),))
    found = compare([contender], 1, 1, lambda _: None, environment={"STEP": "7"})
    assert found["x"].rounds(Case(1), "per_token") == [7]


def test_a_ratio_is_the_median_of_those_within_each_round() -> None:
    assert ratio([2.0, 30.0, 8.0], [1.0, 10.0, 2.0]) == 3
    assert ratio([], [1.0]) is None
    assert ratio([1.0], []) is None


def test_floors_say_what_is_met_missed_and_not_measured() -> None:
    reference = {
        OURS_INT8: outcome(encoder=(0.5, 0.5), per_token=(0.03, 0.03), utterance=(2.0, 2.0)),
        TORCH_FLOAT32: outcome(encoder=(2.0, 2.5), per_token=(0.15, 0.15), utterance=(9.0, 9.0)),
        CTRANSLATE2: outcome(per_token=(0.09, 0.09)),
        OPENVINO: Outcome("openvino not installed"),
    }
    digits = {OURS_INT8: outcome(CLIP, utterance=(0.01,)), TORCH_FLOAT32: outcome(CLIP, utterance=(0.2,))}
    step = {"encoder": 0.1, "first_token": 0.1}
    sweep = [
        measurement(case=Case(10), **step),
        measurement(case=Case(60), per_token=replace(measurement().utterance, p50=0.0126)),
        measurement(case=Case(10, tokens=200), per_token_at=(*[0.010] * 100, *[0.0125] * 99)),
    ]
    found = {
        floor.name: floor
        for floor in floors(Evidence(OURS_INT8, reference, digits, sweep, (1000, 270), (0.010, 0.014)))
    }
    assert found["encoder, against transformers float32"].measured == 4.5
    assert found["encoder, against transformers float32"].verdict == "met"
    assert found["encoder, against OpenVINO bfloat16"].verdict == "not measured"
    assert found["step at 5 beams, against CTranslate2 int8"].measured == pytest.approx(3)
    assert found["step at 5 beams, against transformers float32"].verdict == "**missed**"
    assert found["peak memory, of that of transformers float32"].measured == 1
    assert found["bundle size, of float32"].verdict == "met"
    assert found["load from a warm disk"].measured == 2.0
    assert found["cost per token, 60 s of audio against 10 s"].measured == pytest.approx(1.2)
    assert found["cost per token, prefix of 200"].measured == pytest.approx(1.25)
    assert found["bundled model: whole clip at 4 beams, against transformers"].measured == pytest.approx(20)
    assert found["bundled model: word error rate over that of float32"].measured == pytest.approx(0.4)
    assert found["bundled model: word error rate over that of float32"].verdict == "**missed**"


def test_without_evidence_nothing_is_met() -> None:
    assert {floor.verdict for floor in floors(Evidence(OURS_FLOAT32, {}, {}, (), None, None))} == {"not measured"}


def test_the_table_of_floors() -> None:
    lines = as_table([Floor("a", 2, 2.5), Floor("b", 0.3, 0.31, at_least=False, unit=" s"), Floor("c", 1, None)])
    assert lines[2:] == [
        "| a | 2.50 × | ≥ 2 × | met |",
        "| b | 0.31 s | ≤ 0.3 s | **missed** |",
        "| c | – | ≥ 1 × | not measured |",
    ]


def test_operations_of_an_encoder_counted_by_hand() -> None:
    config: dict[str, Any] = {
        "conv_dim": (3, 4),
        "conv_kernel": (4, 2),
        "conv_stride": (2, 2),
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_conv_pos_embedding_groups": 4,
        "num_conv_pos_embeddings": 3,
        "add_adapter": True,
        "num_adapter_layers": 1,
        "adapter_kernel_size": 3,
        "adapter_stride": 2,
    }
    # 22 samples: 10 frames of width 3, 5 of width 4, projected to 8, and 3 after the adapter, whose gate doubles them.
    convolutions = 10 * 1 * 3 * 4 + 5 * 3 * 4 * 2
    position = 5 * 8 * 2 * 3
    layer = 5 * (4 * 8 * 8 + 2 * 8 * 16) + 2 * 5 * 5 * 8
    assert encoder_operations(config, 22, rate=1) == 2 * (
        convolutions + 5 * 4 * 8 + position + 2 * layer + 3 * 8 * 16 * 3
    )


def test_limits_in_seconds_and_in_words() -> None:
    limits = Limits(threads=2, read=30e9, int8=1500e9, float32=200e9)
    assert limits.step_seconds(450_000_000) == pytest.approx(0.015)
    assert "With 2 threads this machine reads 30.0 GB/s" in limits_line(limits)
    assert "1,500 (int8) and 200 (float32)" in limits_line(limits)


def test_the_plain_search_keeps_the_best_continuations() -> None:
    random = np.random.default_rng(0)
    batch, beams, vocabulary = 2, 3, 11
    logits = random.standard_normal((batch * beams, vocabulary), dtype=np.float32)
    scores = random.standard_normal(batch * beams).astype(np.float32)
    tokens, parents, found = _advance(logits, scores, batch, beams)
    logprobs = logits - np.log(np.exp(logits.astype(np.float64)).sum(axis=1, keepdims=True))
    for row in range(batch):
        own = range(row * beams, (row + 1) * beams)
        every = {(i, t): scores[i] + logprobs[i, t] for i in own for t in range(vocabulary) if t != 2}
        best = sorted(every, key=every.__getitem__)[-beams:]
        assert sorted(zip(parents[own], tokens[own], strict=True)) == sorted(best)
        np.testing.assert_allclose(sorted(found[own]), sorted(every[pair] for pair in best), rtol=1e-5)


def test_tables_name_who_ran() -> None:
    full = {"encoder": (0.5,), "per_token": (0.03,), "utterance": (2.0,)}
    found = {"ran": outcome(**full), "encodes": outcome(encoder=(0.5,), per_token=(None,)), "did not": Outcome("why")}
    assert reference_table(found)[2:] == [
        "| ran | 500 | 30 | 2,000 | – | 3 | 1.5 |",
        "| encodes | 500 | – | – | – | 3 | 1.5 |",
    ]
    assert digits_table({"ran": outcome(CLIP, **full)})[2:] == ["| ran | 500 | 30 | 2,000 |"]
    hidden = {"ran": outcome(encoder=(1.0,), per_token=(0.06,), utterance=(3.0,)), "did not": Outcome("why")}
    assert hidden_table(found, hidden)[2:] == ["| ran | 500 → 1,000 | 30 → 60 | 2,000 → 3,000 |"]


def test_every_contender_has_a_file_and_a_recipe_that_there_is(tmp_path: Path) -> None:
    contenders = [
        *reference_contenders(tmp_path, tmp_path / "a", tmp_path / "b", repeats=1),
        *digits_contenders(tmp_path, tmp_path / "a", tmp_path / "b", repeats=1),
    ]
    for contender in contenders:
        assert (FOLDER / f"{contender.module.replace('.', '/')}.py").is_file()
        assert contender.recipe is None or contender.recipe in RECIPES


def test_what_cannot_be_made_leaves_nothing_and_says_why(tmp_path: Path) -> None:
    problem = ensure("plain-onnx", tmp_path / "plain-onnx")  # there is no checkpoint beside it
    assert problem
    assert not list(tmp_path.iterdir())


def test_what_is_made_appears_when_it_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(directory: Path, others: Path) -> None:
        assert others == tmp_path
        assert not (tmp_path / "made").exists()
        (directory / "part").write_text("whole")

    monkeypatch.setitem(RECIPES, "plain-onnx", (make, ()))
    for _ in range(2):  # the second time somebody else was faster
        assert CliRunner().invoke(prepare, ["plain-onnx", str(tmp_path / "made")]).exit_code == 0
        monkeypatch.setitem(RECIPES, "plain-onnx", (lambda directory, _: (directory / "part").write_text("late"), ()))
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    assert (tmp_path / "made" / "part").read_text() == "whole"


def test_plots_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need the extra `bench`")
    from plots import against_length_and_beams, against_peers

    full = {"encoder": (0.5,), "per_token": (0.03,), "utterance": (2.0,)}
    against_peers({OURS_INT8: outcome(**full), "other": outcome(**full), "no": Outcome("why")}, tmp_path / "a.png")
    sweep = [measurement(case=case) for case in (Case(10), Case(1), Case(10, beams=1))]
    against_length_and_beams({OURS_INT8: sweep}, {1.0: 0.1, 10.0: 0.5}, {OURS_INT8: 0.01}, tmp_path / "b.png")
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "b.png"}
    assert "matplotlib.pyplot" in sys.modules


def test_time_by_operator_is_that_of_all_its_nodes(digits: Pair) -> None:
    found = {each.kind: each for each in operators(digits.directory / "decoder_with_past.onnx", threads=1)}
    layers = digits.exported.manifest.decoder.layers
    assert found["GroupQueryAttention"].count == layers
    assert all(each.milliseconds > 0 for each in found.values())
    encoder = {each.kind for each in operators(digits.directory / "encoder.onnx", threads=1)}
    assert "MultiHeadAttention" in encoder
    assert "If" not in encoder


def test_operators_side_by_side() -> None:
    before = [Operator("MatMul", 4, 97.0), Operator("Concat", 2, 2.5), Operator("Add", 1, 0.5)]
    after = [Operator("Add", 1, 0.5), Operator("MatMul", 2, 9.5)]
    lines = operators_table({"before": before, "after": after})
    assert lines[0] == "|  | before, ms (operators) | after, ms (operators) |"
    assert lines[2:] == [
        "| Add | 0.50 (1) | 0.50 (1) |",
        "| MatMul | 97.00 (4) | 9.50 (2) |",
        "| Concat | 2.50 (2) | – |",
        "| all | 100.00 | 10.00 |",
    ]
