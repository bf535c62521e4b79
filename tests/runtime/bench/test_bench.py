"""Test `speech-bench`: its measurements, its statistics, and the options it refuses before it runs."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from handmade_bundle import DECODER, ENCODER, add_engine_set, make_bundle
from speech_runtime import BenchError, Bundle
from speech_runtime.backends.tensorrt.library import TensorRt
from speech_runtime.bench import runner, worker
from speech_runtime.bench.audio import BenchAudio
from speech_runtime.bench.measure import Measurement, Spread, TimedBackend
from speech_runtime.bench.options import QUICK, BenchOptions, Case
from speech_runtime.bench.report import as_json, as_markdown
from speech_runtime.bench.runner import plan
from speech_runtime.bench.worker import Order, measure_apart
from speech_runtime.bundle.profile_limits import ProfileLimits
from speech_runtime.system import Machine, available_memory

MACHINE = Machine("A processor", 2, ("avx2", "amx_int8"), 24 * 2**30, "Linux", {"onnxruntime": "1.32.0"})


def measurement(**changes: Any) -> Measurement:
    spread = Spread(0.0105, 0.02, 1.5, 10)
    fields: dict[str, Any] = {
        "bundle": "build/model",
        "precision": "fp32",
        "case": Case(10, 1, 5, 40, 0),
        "size": 3 * 2**20,
        "check_seconds": 0.5,
        "load_seconds": 1.5,
        "per_token_at": (0.01, 0.02),
        "throughput": 7.25,
        "peak_rss_bytes": 100 * 2**20,
        **dict.fromkeys(("encoder", "decoder_init", "first_token", "per_token", "utterance"), spread),
        **changes,
    }
    return Measurement(**fields)


def test_percentiles() -> None:
    assert Spread.of([0.3]) == Spread(0.3, 0.3, 0.3, 1)
    spread = Spread.of(list(range(101)))
    assert (spread.p50, spread.p90, spread.p99, spread.count) == (50, 90, 99, 101)


def test_each_axis_is_varied_with_the_others_at_the_reference() -> None:
    options = BenchOptions(seconds=(10, 1), batch=(1, 4), beams=(5, 1, 5), tokens=(40,), threads=(2,))
    reference = Case(10, 1, 5, 40, 2)
    assert options.cases == [reference, Case(1, 1, 5, 40, 2), Case(10, 1, 1, 40, 2), Case(10, 4, 5, 40, 2)]


def test_the_quick_run_is_smaller() -> None:
    full = BenchOptions()
    assert len(QUICK.cases) < len(full.cases)
    assert QUICK.repeats < full.repeats


def test_options_that_cannot_be_meant_are_all_listed() -> None:
    with pytest.raises(BenchError) as error:
        BenchOptions(seconds=(0.0, float("nan")), batch=(0,), beams=(), threads=(-1,), repeats=2, least=3, budget=-1.0)
    for problem in (
        "seconds has 0.0; give seconds above 0",
        "seconds has nan",
        "batch has 0; give 1 or more",
        "beams is (); give at least one value",
        "threads has -1; give 0 (all cores) to",
        "least is 3, more than repeats (2)",
        "budget is -1.0; give 0 seconds or more",
    ):
        assert problem in str(error.value)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("gpu", "unknown device 'gpu'; give one of cpu, cuda"),
        ("engines:1", "threads are for ONNX Runtime, and device 'engines:1' runs without it; give 0"),
    ],
)
def test_devices_that_cannot_be_meant(name: str, problem: str) -> None:
    with pytest.raises(BenchError, match=problem):
        BenchOptions(device=name)
    assert BenchOptions(device="cuda:1", threads=(0, 1)).device == "cuda:1"


def test_cases_beyond_the_engines_are_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle(tmp_path / "bundle", target="tensorrt")
    add_engine_set(bundle, limits=ProfileLimits(batch=(1, 1, 4), beams=(1, 5, 5), seconds=(0.5, 5, 20)))
    library = TensorRt("tensorrt_rtx", SimpleNamespace(__version__="1.7.1"))
    monkeypatch.setattr(runner, "import_tensorrt", lambda flavor: library)
    monkeypatch.setattr(runner, "Cuda", lambda number: SimpleNamespace(compute_capability="8.9"))
    options = BenchOptions(seconds=(10, 0.1, 60), batch=(1, 16), beams=(5, 10), threads=(0,), device="engines")
    with pytest.raises(BenchError) as error:
        plan([bundle], options)
    assert str(error.value).split("; ") == [
        f"{bundle}: seconds is 0.1, and its engines were built for 0.5 to 20",
        f"{bundle}: seconds is 60, and its engines were built for 0.5 to 20",
        f"{bundle}: beams is 10, and its engines were built for 1 to 5",
        f"{bundle}: batch is 16, and its engines were built for 1 to 4",
    ]
    assert plan([bundle], replace(options, seconds=(10, 20), batch=(4,), beams=(1,)))


def test_bundles_take_turns_within_each_case(tmp_path: Path) -> None:
    bundles = [make_bundle(tmp_path / name) for name in ("a", "b")]
    orders = plan(bundles, BenchOptions(seconds=(1, 2), batch=(1,), beams=(5,), threads=(1,)))
    assert [(Path(order.bundle).name, order.case.seconds) for order in orders] == [
        *[("a", 1), ("b", 1)],
        *[("a", 2), ("b", 2)],
    ]


def test_cases_beyond_the_model_are_refused_before_anything_runs(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", encoder=replace(ENCODER, max_length=50_000))
    with pytest.raises(BenchError) as error:
        plan([bundle], BenchOptions(seconds=(2, 0.01, 4), tokens=(40, 65)))
    message = str(error.value)
    assert "0.01 s × 1, 5 beams, 40 tokens, all cores: 0.01 s: has 160 samples" in message
    assert "4 s: has 64,000 samples, the encoder has positions for 50,000 at most" in message
    assert "65 tokens" in message
    assert str(DECODER.max_positions) in message


def test_a_bundle_larger_than_the_free_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "available_memory", lambda: 1000)
    with pytest.raises(BenchError, match="0.0 GiB of memory are free; end other programs"):
        plan([make_bundle(tmp_path / "bundle")], BenchOptions(seconds=(1,)))


def test_a_process_that_dies_is_named_with_its_case(monkeypatch: pytest.MonkeyPatch) -> None:
    order = Order("build/model", Case(60, 16), BenchOptions())

    def dies(signal: int) -> str:
        return f"import os; os.kill(os.getpid(), {signal})"

    for code, message in ((dies(9), "killed by signal 9, most likely for lack of memory"), ("1 / 0", "ZeroDivision")):
        monkeypatch.setattr(worker, "COMMAND", ("-c", code))
        with pytest.raises(BenchError, match=message) as error:
            measure_apart(order)
        assert "build/model, 60 s × 16, 5 beams" in str(error.value)


def test_an_error_in_the_other_process_is_the_same_error_here(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=f"there is no directory {tmp_path / 'nothing'}"):
        measure_apart(Order(str(tmp_path / "nothing"), Case(1), BenchOptions()))


@pytest.mark.parametrize(
    ("facts", "length", "shape"),
    [
        ({}, 24_000, (2, 24_000)),
        ({"input_name": "input_features", "feature_size": 160}, 150, (2, 150, 160)),
    ],
)
def test_noise_of_the_asked_length(tmp_path: Path, facts: dict[str, Any], length: int, shape: tuple[int, ...]) -> None:
    directory = make_bundle(tmp_path / "bundle", encoder=replace(ENCODER, **facts))
    if facts:
        manifest = json.loads((directory / "bundle.json").read_text())
        del manifest["files"]["preprocessor_config.json"]
        (directory / "bundle.json").write_text(json.dumps(manifest))
    audio = BenchAudio(Bundle.open(directory))
    values, mask = audio.model_input(audio.batch(1.5, 2))
    assert audio.input_length(1.5) == length
    assert values.shape == shape
    assert mask.shape == shape[:2]
    assert mask.all()
    assert values.std() > 0
    np.testing.assert_array_equal(audio.model_input(audio.batch(1.5, 2))[0], values)


def test_the_clock_is_around_each_run() -> None:
    class Backend:
        on_host = True
        waited = 0

        def upload(self, array: Any) -> Any:
            return array

        def download(self, value: Any) -> Any:
            return value

        def dtype(self, graph: str, name: str) -> Any:
            return np.dtype(np.float16)

        def share(self, array: Any) -> Any:
            return array

        def prepare(self, graph: str, inputs: Any, outputs: Any, into: Any) -> Any:
            return lambda: dict.fromkeys(outputs, graph)

        def synchronize(self) -> None:
            self.waited += 1

    inner = Backend()
    backend = TimedBackend(inner)
    assert backend.on_host
    assert backend.run("encoder", {}, ["x"]) == {"x": "encoder"}
    assert backend.run("decoder_init", {}, []) == {}
    assert backend.dtype("decoder_with_past", "past.0.key") == np.float16
    assert [run.graph for run in backend.runs] == ["encoder", "decoder_init"]
    assert inner.waited == 2  # on a GPU a run returns before its work is done
    assert backend.runs[0].begin <= backend.runs[0].end <= backend.runs[1].begin


def test_the_table_has_a_row_a_case_and_one_a_bundle() -> None:
    other = measurement(bundle="build/other", precision="int8", case=Case(1, 16, 1, 1, 2), per_token=None)
    text = as_markdown([measurement(), measurement(load_seconds=2.5), other], MACHINE)
    assert "A processor, 2 cores (avx2, amx_int8), 24 GiB; onnxruntime 1.32.0" in text
    times = "10.5 / 20 / 1,500"
    assert f"| model | 10 | 1 | 5 | 40 | all |{f' {times} |' * 5} 7.2 | 100 |" in text
    assert f"| other | 1 | 16 | 1 | 1 | 2 |{f' {times} |' * 3} – | {times} |" in text
    assert "| build/model | fp32 | 3.0 | 2.00 | 0.50 |" in text
    assert "| build/other | int8 | 3.0 | 1.50 | 0.50 |" in text


def test_the_report_begins_with_the_answer() -> None:
    seconds, encoder = Spread(0.43, 0.5, 0.6, 9), Spread(0.2752, 0.3, 0.4, 9)
    slow = measurement(utterance=seconds, encoder=encoder, throughput=23.26)
    other = measurement(
        bundle="build/other", precision="int8", case=Case(1, 16, 1, 1, 2), utterance=seconds, throughput=37.2
    )
    text = as_markdown([slow, other, measurement(throughput=1.0)], MACHINE)
    assert "**model: 10 s of audio take 0.43 s: 23.3 × real time**; 64% of that is the encoder." in text
    assert "**other: 16 clips of 1 s take 0.43 s: 37.2 × real time**" in text
    assert "other is so small that starting an operator takes longer" in text
    assert text.count("× real time**") == 2
    assert text.count("is so small") == 1


def test_on_a_gpu_its_memory_is_in_the_table() -> None:
    machine = replace(MACHINE, gpu="NVIDIA L4")
    text = as_markdown([measurement(gpu_bytes=2**31), measurement()], machine)
    assert "\nNVIDIA L4; A processor" in f"\n{text}"
    assert "| peak MiB | GPU MiB |" in text
    assert "| 7.2 | 100 | 2,048 |" in text
    assert "| 7.2 | 100 | – |" in text
    assert "GPU" not in as_markdown([measurement()], MACHINE)


def test_json_has_the_machine_and_everything_measured() -> None:
    content = json.loads(json.dumps(as_json([measurement()], MACHINE)))
    assert content["machine"]["features"] == ["avx2", "amx_int8"]
    assert content["measurements"][0]["case"] == {"seconds": 10, "batch": 1, "beams": 5, "tokens": 40, "threads": 0}
    assert content["measurements"][0]["utterance"]["p50"] == 0.0105


def test_this_machine() -> None:
    machine = Machine.here()
    assert machine.cores >= 1
    assert {"numpy", "onnxruntime"} <= set(machine.versions)
    assert 0 < (available_memory() or 1) <= machine.memory
