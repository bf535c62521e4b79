"""Test optimisation profiles: the shapes of every input, from seconds, beams and tokens."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Pair
from handmade_bundle import DECODER, ENCODER, make_bundle
from speech_runtime import Bundle, EngineError
from speech_runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from speech_runtime.backends.options import SessionOptions
from speech_runtime.backends.tensorrt.profiles import graph_profiles, input_shapes, shape_ranges, widest
from speech_runtime.bundle.graph_io import DECODER_INIT, DECODER_WITH_PAST, GRAPHS, graph_inputs
from speech_runtime.bundle.graph_io import ENCODER as ENCODER_GRAPH
from speech_runtime.bundle.profile_limits import ProfileLimits, Range


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"batch": 8}, r"batch is 8; give \(smallest, usual, largest\), positive .*, \(1, 1, 8\) for example"),
        ({"batch": (1, 2)}, r"batch is \(1, 2\)"),
        ({"batch": (1, 2, 2.5)}, r"batch is \(1, 2, 2.5\)"),
        ({"batch": (0, 1, 8)}, r"batch is \(0, 1, 8\); give .* positive and in ascending order"),
        ({"seconds": (1.0, 0.5, 30.0)}, "seconds is .* positive and in ascending order"),
        ({"beams": (2, 4, 8)}, "beams is .* every search starts at 1"),
        ({"tokens": (2, 4, 8)}, "tokens is .* every search starts at 1"),
        ({"batch": (True, 1, 8), "beams": (1, 9, 8)}, "batch is .*; beams is"),
    ],
)
def test_limits_that_cannot_be_meant_are_refused_all_at_once(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        ProfileLimits(**limits)


def test_profiles_follow_from_the_facts_and_the_limits(tmp_path: Path) -> None:
    encoder = replace(ENCODER, frame_stride=2560, extra_frames=2)  # three adapters
    bundle = Bundle.open(make_bundle(tmp_path / "bundle", encoder=encoder))
    limits = ProfileLimits(batch=(1, 2, 4), beams=(1, 4, 6), seconds=(0.01, 1, 2), tokens=(1, 20, 100))
    profiles = graph_profiles(bundle, limits)
    batch, frames = Range(1, 2, 4), Range(1, 16000 // 2560 + 2, 32000 // 2560 + 2)
    assert profiles[ENCODER_GRAPH] == ({"batch": batch, "samples": Range(400, 16000, 32000)},)
    assert profiles[DECODER_INIT] == ({"batch": batch, "frames": frames},)
    step, others = profiles[DECODER_WITH_PAST]
    longest = (DECODER.max_positions or 0) - 1
    assert step == {
        "batch": batch,
        "frames": frames,
        "beams": Range(1, 4, 6),
        "past_beams": Range(1, 4, 6),
        "tokens": Range(1, 1, 1),
        "past": Range(1, 20, longest),
    }
    assert others["past"] == Range(0, 0, longest)  # the first step has none
    assert others["tokens"] == Range(1, 1, 4)
    assert widest(profiles[DECODER_WITH_PAST])["past"] == Range(0, 20, longest)


def test_a_bundle_from_before_frames_were_measured_has_room_enough(tmp_path: Path) -> None:
    bundle = Bundle.open(make_bundle(tmp_path / "bundle"))
    assert graph_profiles(bundle, ProfileLimits())[DECODER_INIT][0]["frames"] == Range(1, 501, 1501)


@pytest.mark.parametrize(
    ("encoder", "samples"),
    [
        ({"feature_size": 80, "min_length": 5, "max_length": None}, Range(5, 1000, 3001)),
        ({"feature_size": 80, "min_length": 5, "max_length": 2000}, Range(5, 1000, 2000)),
        ({"feature_size": 80, "min_length": 1024, "max_length": 1024}, Range(1024, 1024, 1024)),
    ],
)
def test_without_an_extractor_features_come_a_hundred_a_second(
    encoder: dict[str, Any], samples: Range, tmp_path: Path
) -> None:
    directory = make_bundle(tmp_path / "bundle", encoder=replace(ENCODER, input_name="input_features", **encoder))
    bundle = Bundle.open(directory)
    del bundle.manifest.files["preprocessor_config.json"]
    assert graph_profiles(bundle, ProfileLimits())[ENCODER_GRAPH][0]["samples"] == samples


def test_audio_that_is_too_short_for_the_encoder_is_refused(tmp_path: Path) -> None:
    bundle = Bundle.open(make_bundle(tmp_path / "bundle"))
    with pytest.raises(EngineError, match="the encoder needs 400 samples"):
        graph_profiles(bundle, ProfileLimits(seconds=(0.01, 0.01, 0.02)))


@pytest.mark.parametrize(
    ("facts", "shape"),
    [
        ({}, ("batch", "samples")),
        ({"feature_size": 80}, ("batch", "samples", 80)),
        ({"feature_size": 80, "min_length": 9, "max_length": 9}, ("batch", 9, 80)),
    ],
)
def test_shapes_of_the_encoder(facts: dict[str, Any], shape: tuple[Any, ...]) -> None:
    assert input_shapes(ENCODER_GRAPH, replace(ENCODER, **facts), DECODER, 32)["input_values"] == shape


def test_a_fixed_dimension_has_one_size() -> None:
    assert shape_ranges(("batch", 9), {"batch": Range(1, 2, 3)}) == ((1, 9), (2, 9), (3, 9))


def test_every_input_of_the_graphs_has_the_shape_that_the_profiles_are_for(digits_for_tensorrt: Path) -> None:
    bundle = Bundle.open(digits_for_tensorrt)
    manifest, backend = bundle.manifest, OnnxRuntimeBackend(bundle, SessionOptions(intra_op_threads=1))
    width = backend._sessions[DECODER_INIT].get_inputs()[0].shape[-1]
    for graph in GRAPHS:
        expected = {node.name: tuple(node.shape) for node in backend._sessions[graph].get_inputs()}
        assert input_shapes(graph, manifest.encoder, manifest.decoder, width) == expected
        assert list(expected) == graph_inputs(graph, manifest.encoder.input_name, manifest.decoder.layers)


def test_the_frames_of_a_profile_hold_what_the_encoder_makes(digits: Pair) -> None:
    bundle = Bundle.open(digits.directory)
    frames = graph_profiles(bundle, ProfileLimits(seconds=(0.1, 1.0, 2.0)))[DECODER_INIT][0]["frames"]
    encoded = digits.exported.encode(np.zeros((1, 32000), dtype=np.float32))
    found = digits.exported._backend.download(encoded.hidden_states).shape[1]
    assert found <= frames.largest <= found + 2


def test_the_steps_of_a_static_cache_are_all_alike(tmp_path: Path) -> None:
    decoder = replace(DECODER, cache="static", cache_length=40, max_tokens=1)
    bundle = Bundle.open(make_bundle(tmp_path / "bundle", decoder=decoder))
    limits = ProfileLimits(beams=(1, 4, 6), seconds=(0.01, 1, 2))
    (profile,) = graph_profiles(bundle, limits)[DECODER_WITH_PAST]
    assert profile["beams"] == profile["past_beams"] == Range(1, 4, 6)
    assert "past" not in profile
    shapes = input_shapes(DECODER_WITH_PAST, ENCODER, decoder, 32)
    assert list(shapes) == graph_inputs(DECODER_WITH_PAST, "input_values", decoder.layers, "static")
    assert shapes["past.0.key"] == ("batch", "past_beams", decoder.heads, 40, decoder.head_dim)
    assert shapes["past_rows"] == ("batch", "beams")
    assert shapes["past_length"] == (1,)


@pytest.mark.parametrize(("masks_audio", "largest"), [(True, 112), (False, 101)])
def test_frames_may_be_filled_up_where_they_are_masked(masks_audio: bool, largest: int, tmp_path: Path) -> None:
    decoder = replace(DECODER, cache="static", cache_length=40, max_tokens=1, masks_audio=masks_audio)
    bundle = Bundle.open(make_bundle(tmp_path / "bundle", decoder=decoder))
    profiles = graph_profiles(bundle, ProfileLimits(seconds=(0.01, 1, 2)))
    found = {profiles[graph][0]["frames"].largest for graph in (DECODER_INIT, DECODER_WITH_PAST)}
    assert found == {largest}
