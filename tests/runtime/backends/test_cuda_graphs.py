"""Test recorded steps on a session that records and replays blindly, as ONNX Runtime does with CUDA graphs."""

import gc
import signal
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from composites import composite
from conftest import ONE_THREAD, ExportOnce
from handmade_bundle import DECODER, make_bundle
from recorded_gpu import NOT_RECORDED, OnDevice, RecordingSession
from speech_export.precision.options import PrecisionOptions
from speech_runtime import CudaOptions, EngineError, EngineMemoryError, OnnxSpeechSeq2Seq, SessionOptions
from speech_runtime.backends.cuda import captures, graphs
from speech_runtime.backends.cuda.captures import CUDA_CALLS
from speech_runtime.backends.cuda.recorded_sizes import frame_bucket
from speech_runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from speech_runtime.backends.onnxruntime.graph_providers import graph_providers
from speech_runtime.backends.options import CUDA
from speech_runtime.bundle.graph_io import DECODER_WITH_PAST, GRAPHS
from speech_runtime.bundle.loading import Bundle
from speech_runtime.generation.decoding.caches.buffer_pool import StepBufferPool
from speech_runtime.generation.decoding.decoder import CachedDecoder


@pytest.fixture(scope="module")
def static(export_once: ExportOnce) -> Callable[[str], Bundle]:
    def make(family: str) -> Bundle:
        settings: dict[str, Any] = {"precision": PrecisionOptions(target="tensorrt"), "static_cache": 40}
        return Bundle.open(export_once(f"{family}-static", composite(family), **settings))

    return make


@pytest.fixture
def models(static: Callable[[str], Bundle]) -> tuple[OnnxSpeechSeq2Seq, OnnxSpeechSeq2Seq, RecordingSession]:
    """Load a model with recorded steps, and one without."""
    bundle = static("bert")
    plain = OnnxSpeechSeq2Seq.from_pretrained(bundle.directory, options=ONE_THREAD)
    model, backend = on_device(bundle, plain)
    return model, plain, backend.session


def clips(batch: int, samples: int = 500, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((batch, samples)).astype(np.float32)


Models = tuple[OnnxSpeechSeq2Seq, OnnxSpeechSeq2Seq, RecordingSession]


@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 1},
        {"num_beams": 4, "num_return_sequences": 2},
        {"num_beams": 3, "repetition_penalty": 1.3},
        {"num_beams": 2, "decoder_input_ids": [[5, 6, 7], [8, 9, 10]]},
    ],
    ids=["greedy", "beams", "whole vocabulary", "prompt"],
)
def test_replayed_searches_find_the_same(models: Models, settings: dict[str, Any]) -> None:
    recorded, plain, session = models
    for seed in range(3):
        inputs = clips(2, seed=seed)
        found, expected = (
            model.generate(inputs, max_new_tokens=24, return_dict_in_generate=True, **settings)
            for model in (recorded, plain)
        )
        np.testing.assert_array_equal(found.sequences, expected.sequences)
        np.testing.assert_allclose(found.sequences_scores, expected.sequences_scores, atol=1e-5)
    assert NOT_RECORDED not in session.numbers


def test_later_utterances_record_nothing_new(models: Models) -> None:
    recorded, _, session = models
    for seed in range(3):
        recorded.generate(clips(1, seed=seed), num_beams=4, min_new_tokens=12, max_new_tokens=12)
    first, *others = np.array_split(session.numbers, 3)
    assert [list(each) for each in others] == [list(first)] * 2
    # Recordings: the first token with one beam, the next with its four beams, then two caches in turn.
    assert [int(number) for number in first] == [1, 2, *[3, 4] * 5]


def test_sizes_beyond_those_that_were_asked_for_are_not_recorded(models: Models) -> None:
    recorded, plain, session = models
    for batch in (1, 2):
        recorded.generate(clips(batch), num_beams=2, max_new_tokens=6)
    before = len(session.recorded)
    session.numbers.clear()
    found = recorded.generate(clips(3), num_beams=2, max_new_tokens=6)
    assert set(session.numbers) == {NOT_RECORDED}
    assert len(session.recorded) == before
    np.testing.assert_array_equal(found, plain.generate(clips(3), num_beams=2, max_new_tokens=6))


def test_clips_of_about_the_same_length_share_what_was_recorded(models: Models) -> None:
    recorded, plain, session = models
    stride = recorded.manifest.encoder.frame_stride
    assert stride is not None
    for frames in (35, 37, 39):
        inputs = clips(1, frames * stride)
        settings = {"num_beams": 3, "min_new_tokens": 9, "max_new_tokens": 9}
        np.testing.assert_array_equal(recorded.generate(inputs, **settings), plain.generate(inputs, **settings))
        assert len(session.recorded) == 4


@pytest.mark.parametrize(("masks_audio", "frames"), [(True, 20), (False, 17)])
def test_a_decoder_that_heeds_no_mask_is_given_no_more_frames(
    masks_audio: bool, frames: int, static: Callable[[str], Bundle]
) -> None:
    backend, facts = OnDevice(static("bert")), replace(static("bert").manifest.decoder, masks_audio=masks_audio)
    states, mask = np.ones((1, 17, 24), dtype=np.float32), np.ones((1, 17), dtype=np.int64)
    lent = StepBufferPool(backend, facts).lend(backend, backend.upload(states), backend.upload(mask), beams=1)
    assert lent is not None
    assert lent.fixed["cross.0.key"].shape()[2] == frames
    assert backend.download(lent.fixed["encoder_attention_mask"]).sum() == 17


def test_two_searches_at_a_time_have_memory_of_their_own(static: Callable[[str], Bundle]) -> None:
    bundle = static("bert")
    backend, facts = OnDevice(bundle), bundle.manifest.decoder
    memories = StepBufferPool(backend, facts)
    mask = np.ones((1, 20), dtype=np.int64)

    def search(seed: int) -> CachedDecoder:
        states = np.random.default_rng(seed).standard_normal((1, 20, 24)).astype(np.float32)
        return CachedDecoder(backend, facts, 1, backend.upload(states), backend.upload(mask), memories)

    def step(decoder: CachedDecoder, tokens: Sequence[int]) -> NDArray[np.float32]:
        return np.stack([decoder.step([[token]], [[0]], full_vocab=True)[0].scores for token in tokens])

    alone = [step(search(seed), (1, 5, 9)) for seed in range(3)]
    decoders = [search(seed) for seed in range(3)]  # memory is reserved for two
    together = [[step(decoder, [token]) for decoder in decoders] for token in (1, 5, 9)]
    for seed in range(3):
        np.testing.assert_allclose(np.concatenate([found[seed] for found in together]), alone[seed], atol=1e-6)
    assert NOT_RECORDED in backend.session.numbers


def test_threads_find_what_they_find_alone_and_share_recordings(static: Callable[[str], Bundle]) -> None:
    """Two models and four threads in one process: each recording is a capture during which nobody calls CUDA."""
    plain = OnnxSpeechSeq2Seq.from_pretrained(static("bert").directory, options=ONE_THREAD)
    both = [on_device(static("bert"), plain, recordings=4) for _ in range(2)]
    settings = {"num_beams": 3, "max_new_tokens": 12}
    expected = [plain.generate(clips(1, seed=seed), **settings) for seed in range(4)]
    with ThreadPoolExecutor(4) as threads:
        jobs = [(model, seed) for seed in range(4) for model, _ in both] * 2
        found = list(threads.map(lambda job: job[0].generate(clips(1, seed=job[1]), **settings), jobs))
    for (_, seed), ours in zip(jobs, found, strict=True):
        np.testing.assert_array_equal(ours, expected[seed])
    for _, backend in both:
        assert backend.session.recorded
        assert NOT_RECORDED not in backend.session.numbers
    assert threading.active_count() >= 1 + len(both)


def test_a_search_that_raises_or_is_interrupted_gives_its_tensors_back(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded, plain, session = models
    settings = {"num_beams": 3, "min_new_tokens": 6, "max_new_tokens": 6}
    recorded.generate(clips(1), **settings)
    before, steps = dict(session.recorded), count()

    def stop(tokens: Any, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        if next(steps) == 2:
            raise ValueError("on purpose")
        return scores

    def run(number: str, binding: Any) -> None:
        if next(steps) == 2:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            time.sleep(0.05)
        RecordingSession._run(session, number, binding)

    with pytest.raises(ValueError, match="on purpose"):
        recorded.generate(clips(1), logits_processor=[stop], **settings)
    gc.collect()  # the error refers to the search
    session.recorded.clear()  # those with logits
    session.recorded.update(before)
    steps = count()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(session, "_run", run)
        recorded.generate(clips(1), **settings)
    gc.collect()
    session.numbers.clear()
    np.testing.assert_array_equal(recorded.generate(clips(1), **settings), plain.generate(clips(1), **settings))
    assert set(session.numbers) == set(before)  # the tensors of the first search, which were given back twice


def test_a_step_that_cannot_be_recorded_runs_without(
    models: Models, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recorded, plain, session = models
    attempts = []

    def spoilt(number: str, binding: Any) -> None:
        attempts.append(number)
        raise RuntimeError("CUDA failure 900: operation not permitted when stream is capturing ; GPU=0 ; expr=x(); ")

    monkeypatch.setattr(session, "capture", spoilt)
    settings = {"num_beams": 3, "min_new_tokens": 9, "max_new_tokens": 9}
    for seed in range(2):
        found = recorded.generate(clips(1, seed=seed), **settings)
        np.testing.assert_array_equal(found, plain.generate(clips(1, seed=seed), **settings))
    assert len(attempts) == 4  # each set of tensors once
    assert caplog.text.count("CUDA failure 900: operation not permitted when stream is capturing in x()") == 4


def test_a_step_that_fails_is_an_error_and_is_recorded_when_it_succeeds(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded, plain, session = models

    def full(number: str, binding: Any) -> None:
        raise RuntimeError("Failed to allocate memory for requested buffer of size 5")

    settings = {"num_beams": 3, "max_new_tokens": 5}
    with monkeypatch.context() as patch, pytest.raises(EngineMemoryError, match="decoder_with_past needs more memory"):
        patch.setattr(session, "_run", full)
        recorded.generate(clips(1), **settings)
    np.testing.assert_array_equal(recorded.generate(clips(1), **settings), plain.generate(clips(1), **settings))
    assert session.recorded


def test_steps_run_unrecorded_while_another_thread_does_not_pause(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded, plain, session = models
    monkeypatch.setattr(captures, "_PATIENCE_SECONDS", 0.01)
    settings = {"num_beams": 3, "min_new_tokens": 9, "max_new_tokens": 9}
    begun, end = threading.Event(), threading.Event()

    def load_a_model() -> None:
        with CUDA_CALLS:
            begun.set()
            end.wait(10)

    with ThreadPoolExecutor(1) as thread:
        thread.submit(load_a_model)
        assert begun.wait(10)
        found = recorded.generate(clips(1), **settings)
        end.set()
    np.testing.assert_array_equal(found, plain.generate(clips(1), **settings))
    assert set(session.numbers) == {NOT_RECORDED}
    monkeypatch.setattr(graphs, "_PAUSE_SECONDS", 0)
    recorded._backend._cuda_graphs._not_before = 0
    recorded.generate(clips(1), **settings)
    assert session.recorded


def test_memory_that_is_not_allowed_is_not_kept(static: Callable[[str], Bundle]) -> None:
    """The caches of one size fit; not those of the next one, nor the logits of the first."""
    bundle = static("bert")
    facts = bundle.manifest.decoder
    plain = OnnxSpeechSeq2Seq.from_pretrained(bundle.directory, options=ONE_THREAD)
    layer = 2 * 4 * facts.layers * facts.heads * facts.head_dim
    most = layer * (2 * (1 + 2) * facts.cache_length + frame_bucket(20)) + 8 * frame_bucket(20) + 12 * facts.top_k * 3
    model, backend = on_device(bundle, plain, recordings=9, recording_memory=most)
    encoded = 20 * model.manifest.encoder.frame_stride
    inputs = clips(1, encoded)
    for settings, is_recorded in (
        ({"num_beams": 2}, True),
        ({"num_beams": 2, "repetition_penalty": 1.3}, False),
        ({"num_beams": 3}, False),
        ({"num_beams": 2}, True),
    ):
        backend.session.numbers.clear()
        found = model.generate(inputs, max_new_tokens=6, **settings)
        np.testing.assert_array_equal(found, plain.generate(inputs, max_new_tokens=6, **settings))
        assert (NOT_RECORDED not in backend.session.numbers) == is_recorded


class OnTheCpu(onnxruntime.InferenceSession):
    """A session that claims to be on CUDA."""

    def __init__(self, path: str, settings: Any, providers: list[Any], enable_fallback: int) -> None:
        super().__init__(path, settings, providers=["CPUExecutionProvider"])

    def get_providers(self) -> list[str]:
        return [CUDA]


@pytest.mark.parametrize(
    ("cuda", "sizes", "memory"),
    [
        (CudaOptions(), 64, 20 * 2**30),
        (CudaOptions(cuda_graphs=3, cuda_graph_memory=0.5), 3, 40 * 2**30),
        (CudaOptions(cuda_graphs=0), 0, None),
    ],
)
def test_cuda_records_by_default_within_a_share_of_the_memory(
    cuda: CudaOptions,
    sizes: int,
    memory: int | None,
    static: Callable[[str], Bundle],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(onnxruntime, "InferenceSession", OnTheCpu)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setattr("speech_runtime.backends.onnxruntime.backend.free_memory", {1: 80 * 2**30}.__getitem__)
    before = set(threading.enumerate())
    backend = OnnxRuntimeBackend(static("bert"), SessionOptions(device="cuda", device_id=1, cuda=cuda))
    assert (backend.recordings, backend.recording_memory) == (sizes, memory)
    started = [thread for thread in threading.enumerate() if thread not in before]
    assert len(started) == (sizes > 0)
    sessions = [weakref.ref(session) for session in backend._sessions.values()]
    del backend
    gc.collect()
    assert [session() for session in sessions] == [None] * 3
    for thread in started:
        thread.join(10)
        assert not thread.is_alive()


def on_device(bundle: Bundle, plain: OnnxSpeechSeq2Seq, **bounds: int) -> tuple[OnnxSpeechSeq2Seq, OnDevice]:
    backend = OnDevice(bundle, **bounds)
    parts = (plain.manifest, plain.generation_config, plain.feature_extractor, plain.tokenizer)
    return OnnxSpeechSeq2Seq(backend, *parts), backend


class Keeping(OnDevice):
    """Keeps the tensors that were uploaded, and those that were read last."""

    def __init__(self, bundle: Bundle) -> None:
        self.uploaded: list[Any] = []
        self.read: list[Any] = []
        super().__init__(bundle)

    def upload(self, array: NDArray[Any]) -> Any:
        self.uploaded.append(super().upload(array))
        return self.uploaded[-1]

    def download(self, value: Any) -> NDArray[Any]:
        self.read.append(value)
        return super().download(value)


def test_nothing_is_left_where_a_recording_may_have_intermediate_results(static: Callable[[str], Bundle]) -> None:
    backend = Keeping(static("bert"))
    states, mask = np.ones((1, 20, 24), dtype=np.float32), np.ones((1, 20), dtype=np.int64)
    facts = static("bert").manifest.decoder
    decoder = CachedDecoder(backend, facts, 1, backend.upload(states), backend.upload(mask))  # nothing is lent to it
    decoder.step([[1]], [[0]], full_vocab=False)
    assert backend.session.numbers == [NOT_RECORDED]
    for value in backend.read[-2:]:  # log-probabilities and ids, in the order of the search
        assert any(value is each for each in backend.uploaded)


def test_sequences_of_hypotheses_are_decoded_beside_a_recorded_search(models: Models) -> None:
    recorded, plain, _ = models
    tokens = np.random.default_rng(0).integers(4, 90, (1, 9))
    found, expected = (model.forward(clips(1), decoder_input_ids=tokens).logits for model in (recorded, plain))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_frames_are_filled_up_by_a_quarter_at_most() -> None:
    held = [frame_bucket(frames) for frames in range(1, 2000)]
    assert all(frames <= size for frames, size in enumerate(held, start=1))
    assert all(size <= max(16, 1.25 * frames) for frames, size in enumerate(held, start=1))
    assert sorted(set(held))[:10] == [16, 20, 24, 28, 32, 40, 48, 56, 64, 80]


def settings(options: SessionOptions, bundle: Bundle, graph: str) -> dict[str, str]:
    return dict(graph_providers(options, bundle, graph, 32, "1.32"))[CUDA]


def test_the_step_alone_is_recorded(static: Callable[[str], Bundle]) -> None:
    options = SessionOptions(device="cuda", cuda=CudaOptions(cuda_graphs=4))
    found = {graph: settings(options, static("bert"), graph).get("enable_cuda_graph") for graph in GRAPHS}
    assert found == {"encoder": None, "decoder_init": None, DECODER_WITH_PAST: "1"}
    for cuda, expected in ((CudaOptions(), "1"), (CudaOptions(cuda_graphs=0), None)):
        chosen = settings(SessionOptions(device="cuda", cuda=cuda), static("bert"), DECODER_WITH_PAST)
        assert chosen.get("enable_cuda_graph") == expected


def test_steps_whose_shapes_change_cannot_be_recorded(tmp_path: Path) -> None:
    growing = Bundle.open(make_bundle(tmp_path / "bundle", target="cuda", decoder=DECODER))
    options = SessionOptions(device="cuda", cuda=CudaOptions(cuda_graphs=4))
    for_tensorrt = Bundle.open(make_bundle(tmp_path / "tensorrt", target="tensorrt", decoder=DECODER))
    for bundle, remedy in (
        (growing, r"without --growing-cache \(ProphetNet"),
        (for_tensorrt, "with --static-cache TOK"),
    ):
        with pytest.raises(EngineError, match=f"cuda_graphs is 4, and the cache of .* grows .* {remedy}"):
            graph_providers(options, bundle, DECODER_WITH_PAST, 32, "1.32")
    for cuda in (CudaOptions(), CudaOptions(cuda_graphs=0)):
        unrecorded = settings(SessionOptions(device="cuda", cuda=cuda), growing, DECODER_WITH_PAST)
        assert "enable_cuda_graph" not in unrecorded


@pytest.mark.parametrize("number", [-1, True, 2.5])
def test_what_is_no_number_of_sizes_is_refused(number: Any) -> None:
    with pytest.raises(EngineError, match="cuda_graphs is .*; give a number of sizes, or 0 for no CUDA .*, or None"):
        CudaOptions(cuda_graphs=number)


@pytest.mark.parametrize("share", [-0.1, 1.5, None])
def test_what_is_no_share_of_the_memory_is_refused(share: Any) -> None:
    with pytest.raises(EngineError, match=r"cuda_graph_memory is .*; give 0 \(no recordings\) to 1"):
        CudaOptions(cuda_graph_memory=share)


def test_only_cuda_records() -> None:
    with pytest.raises(
        EngineError, match="cuda_graphs is 2, and device 'tensorrt' records no CUDA graphs; set device='cuda'"
    ):
        SessionOptions(device="tensorrt", cuda=CudaOptions(cuda_graphs=2))
    with pytest.raises(EngineError, match="cuda is set, and providers has options of its own"):
        SessionOptions(device="cuda", providers=((CUDA, {}),), cuda=CudaOptions(cuda_graphs=2))
