"""Optimisation profiles: ranges of the dynamic dimensions of a graph, and the choice of one for a call."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from math import ceil
from pathlib import Path

from ...audio.features import read_feature_extractor
from ...bundle.graph_io import (
    ATTENTION_MASK,
    BEAM_IDX,
    DECODER_INIT,
    DECODER_WITH_PAST,
    ENCODER,
    ENCODER_ATTENTION_MASK,
    ENCODER_HIDDEN_STATES,
    INPUT_IDS,
    PAST_LENGTH,
    PAST_ROWS,
    cache_names,
)
from ...bundle.loading import Bundle
from ...bundle.manifest import PREPROCESSOR_CONFIG, EngineSet
from ...bundle.model_facts import DecoderFacts, EncoderFacts
from ...bundle.profile_limits import ProfileLimits, Range
from ...errors import AudioError, EngineError
from ..cuda.recorded_sizes import frame_bucket

Profile = Mapping[str, Range]
"""Ranges of the dynamic dimensions of a graph, by name."""

Shape = tuple[int | str, ...]
"""Shape of an input: fixed sizes, and names of dynamic dimensions."""

WAVEFORM_RATE, FEATURE_RATE = 16_000, 100
"""Samples and feature frames per second in bundles without a feature extractor."""

_SECOND = 1.0
_LIMIT_OF = {
    "batch": "batch",
    "beams": "beams",
    "past_beams": "beams",
    "samples": "seconds",
    "frames": "seconds",
    "tokens": "step_tokens",
    "past": "tokens",
}
"""Field of `ProfileLimits` for each dynamic dimension."""


def graph_profiles(bundle: Bundle, limits: ProfileLimits) -> dict[str, tuple[Profile, ...]]:
    """Return the profiles of each graph; a call uses the first one that holds its sizes.

    The decoder has two: one for the step of one token with a past, which takes nearly all of the time, and one for
    every other step, including the first one with its empty past. With a static cache all steps have the same shapes
    apart from their beams, and one profile.

    Args:
        bundle: Bundle whose manifest has the model's facts, and whose feature extractor converts seconds into samples.
        limits: Sizes that the profiles must hold.

    Raises:
        EngineError: All audio within `limits` is too short for the encoder.
    """
    encoder, decoder = bundle.manifest.encoder, bundle.manifest.decoder
    batch, samples = Range(*limits.batch), _samples(bundle, limits)
    frames = _frames(samples, encoder)
    beams, step = Range(*limits.beams), Range(*limits.step_tokens)
    usual, longest = (_positions(tokens, decoder) for tokens in limits.tokens[1:])
    if decoder.cache == "static" and decoder.masks_audio:  # frames may be padded so that steps can be recorded
        frames = replace(frames, largest=frame_bucket(frames.largest))
    shared = {"batch": batch, "frames": frames}
    one_token = {**shared, "beams": beams, "past_beams": beams, "tokens": Range(1, 1, 1)}
    of_step: tuple[Profile, ...] = (one_token,)
    if decoder.cache != "static":
        of_step = (
            {
                **one_token,
                "past": Range(min(1, longest - 1), min(usual, longest - 1), longest - 1),
            },
            {
                **shared,
                "beams": Range(1, 1, beams.largest),
                "past_beams": Range(1, 1, beams.largest),
                "tokens": step,
                "past": Range(0, 0, longest - 1),
            },
        )
    return {
        ENCODER: ({"batch": batch, "samples": samples},),
        DECODER_INIT: (shared,),
        DECODER_WITH_PAST: of_step,
    }


def widest(profiles: Sequence[Profile]) -> Profile:
    """Return one profile that holds all of them, with the usual sizes of the first."""
    return {
        name: Range(
            min(profile[name].smallest for profile in profiles),
            first.usual,
            max(profile[name].largest for profile in profiles),
        )
        for name, first in profiles[0].items()
    }


def input_shapes(graph: str, encoder: EncoderFacts, decoder: DecoderFacts, width: int) -> dict[str, Shape]:
    """Return the shape of every input of `graph`; `width` is the last dimension of `encoder_hidden_states`."""
    samples: Shape = ("batch", encoder.min_length if encoder.min_length == encoder.max_length else "samples")
    features = () if encoder.feature_size is None else (encoder.feature_size,)
    past: Shape = ("batch", "past_beams", decoder.heads, decoder.cache_length or "past", decoder.head_dim)
    beams: Shape = ("batch", "beams")
    places: dict[str, Shape] = {BEAM_IDX: beams} if decoder.cache != "static" else {PAST_ROWS: beams, PAST_LENGTH: (1,)}
    cross: Shape = ("batch", decoder.heads, "frames", decoder.head_dim)
    return {
        ENCODER: {encoder.input_name: (*samples, *features), ATTENTION_MASK: samples},
        DECODER_INIT: {ENCODER_HIDDEN_STATES: ("batch", "frames", width)},
        DECODER_WITH_PAST: {
            INPUT_IDS: ("batch", "beams", decoder.max_tokens or "tokens"),
            **places,
            ENCODER_ATTENTION_MASK: ("batch", "frames"),
            **dict.fromkeys(cache_names("past", decoder.layers), past),
            **dict.fromkeys(cache_names("cross", decoder.layers), cross),
        },
    }[graph]


def shape_ranges(shape: Shape, profile: Profile) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return the smallest, the usual and the largest shape in `profile`."""
    ranges = [Range(size, size, size) if isinstance(size, int) else profile[size] for size in shape]
    return (
        tuple(sizes.smallest for sizes in ranges),
        tuple(sizes.usual for sizes in ranges),
        tuple(sizes.largest for sizes in ranges),
    )


class ProfileChoice:
    """Chooses the profile of a call of one graph."""

    def __init__(self, graph: str, engines: EngineSet, shapes: Mapping[str, Shape], directory: Path) -> None:
        """Read the profiles of `graph` from `engines`.

        Args:
            graph: Name of the graph.
            engines: Engines of the bundle.
            shapes: Shapes of the graph's inputs, with names of the dynamic dimensions.
            directory: Directory of the bundle, for messages.
        """
        self._graph = graph
        self._engines = engines
        self._profiles: Sequence[Profile] = engines.profiles[graph]
        self._directory = directory
        self._axes = [
            (name, axis, size)
            for name, shape in shapes.items()
            for axis, size in enumerate(shape)
            if isinstance(size, str)
        ]

    def __call__(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """Return the index of the first profile that holds inputs of `shapes`.

        Raises:
            EngineError: No profile does; the message has the limits, and the command that builds larger engines.
        """
        sizes = {dimension: shapes[name][axis] for name, axis, dimension in self._axes}
        for index, profile in enumerate(self._profiles):
            if all(profile[dimension].holds(size) for dimension, size in sizes.items()):
                return index
        raise EngineError(self._reason(sizes))

    def _reason(self, sizes: Mapping[str, int]) -> str:
        profile, limits = widest(self._profiles), self._engines.limits
        problems = []
        for dimension, size in sizes.items():
            held = profile[dimension]
            if not held.holds(size):
                problems.append(f"{dimension} is {size:,}, they take {held.smallest:,} to {held.largest:,}")
                limits = _extended(limits, dimension, size, held)
        return (
            f"the engines of {self._graph} were not built for this: {'; '.join(problems)}. Build them again for more: "
            f"speech-export {self._directory} --engines {' '.join(_flags(limits))}"
        )


def _extended(limits: ProfileLimits, dimension: str, size: int, held: Range) -> ProfileLimits:
    """Return limits with room for `size`, which is outside the range `held` of the dimension."""
    name = _LIMIT_OF[dimension]
    least, usual, most = getattr(limits, name)
    if name == "seconds":
        a_second = held.largest / most
        wanted: float = ceil(size / a_second) if size > held.largest else round(size / a_second, 3)
    else:
        wanted = size + 1 if name == "tokens" else size
    least, most = min(least, wanted), max(most, wanted)
    return replace(limits, **{name: (least, min(max(usual, least), most), most)})


def _flags(limits: ProfileLimits) -> Iterator[str]:
    for field in fields(limits):
        value = getattr(limits, field.name)
        if value != field.default:
            yield f"--trt-{field.name.replace('_', '-')} {' '.join(f'{size:g}' for size in value)}"


def _samples(bundle: Bundle, limits: ProfileLimits) -> Range:
    """Return the range of model input lengths for the seconds of audio, within the encoder's limits."""
    encoder = bundle.manifest.encoder
    least, most = encoder.min_length, encoder.max_length
    lengths = [_input_length(bundle, seconds) for seconds in limits.seconds]
    if most is None and lengths[2] < least:
        raise EngineError(f"profile limits: seconds is {limits.seconds!r}, and the encoder needs {least:,} samples")
    padding = 0 if encoder.feature_size is None else 1  # extractors pad to an even number of analysis frames
    smallest, usual, largest = (
        max(least, length if most is None else min(length, most))
        for length in (lengths[0], lengths[1], lengths[2] + padding)
    )
    return Range(smallest, usual, largest)


def _input_length(bundle: Bundle, seconds: float) -> int:
    """Return the number of samples or feature frames; 0 for audio shorter than one frame."""
    encoder = bundle.manifest.encoder
    if not bundle.has(PREPROCESSOR_CONFIG):
        return round(seconds * (WAVEFORM_RATE if encoder.feature_size is None else FEATURE_RATE))
    extractor = read_feature_extractor(bundle.path(PREPROCESSOR_CONFIG))
    try:
        return extractor.input_length(round(seconds * extractor.sampling_rate), "the audio")
    except AudioError:  # too short for a frame, or longer than the one spectrogram of fixed size
        return 0 if seconds < _SECOND else encoder.max_length or 0


def _frames(samples: Range, encoder: EncoderFacts) -> Range:
    """Return the range of frames of the encoder's output; the largest is never too small."""
    stride, extra = encoder.frame_stride or encoder.stride, encoder.extra_frames
    usual, largest = (length // stride + extra for length in (samples.usual, samples.largest))
    smallest = largest if samples.smallest == samples.largest else 1
    return Range(smallest, max(usual, smallest), largest)


def _positions(tokens: int, decoder: DecoderFacts) -> int:
    return tokens if decoder.max_positions is None else min(tokens, decoder.max_positions)
