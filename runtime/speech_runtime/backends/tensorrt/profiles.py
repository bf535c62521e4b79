"""Profiles: the ranges of all dynamic dimensions of a graph, derived from what the manifest says of the model."""

from collections.abc import Mapping
from dataclasses import asdict, replace

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
from ...bundle.manifest import PREPROCESSOR_CONFIG
from ...bundle.model_facts import DecoderFacts, EncoderFacts
from ...bundle.profile_limits import ProfileLimits, Range
from ...errors import AudioError, EngineError
from ..frame_buckets import frame_bucket

Profile = Mapping[str, Range]
"""Ranges of the dynamic dimensions of a graph, by the names of the contract."""

Shape = tuple[int | str, ...]
"""Of an input: sizes, and names of dynamic dimensions."""

_WAVEFORM_RATE = 16_000
_FEATURE_RATE = 100
"""Samples and feature frames a second where no extractor of the bundle says it."""

_SECOND = 1.0


def graph_profiles(bundle: Bundle, limits: ProfileLimits) -> dict[str, tuple[Profile, ...]]:
    """The profiles of each graph; a call runs in the first one that it fits into.

    The decoder has two: the step of one token with a past, which is nearly all of the time, and every other step, the
    first one with its 0 long past among them. With a static cache all steps are alike, but for their beams.

    Args:
        bundle: whose manifest has the facts of the model, and whose feature extractor turns seconds into input.
        limits: see `ProfileLimits`.

    Raises:
        EngineError: the encoder takes no audio as short as all of them.
    """
    encoder, decoder = bundle.manifest.encoder, bundle.manifest.decoder
    batch, samples = Range(*limits.batch), _samples(bundle, limits)
    frames = _frames(samples, encoder)
    beams, step = Range(*limits.beams), Range(*limits.step_tokens)
    usual, longest = (_positions(tokens, decoder) for tokens in limits.tokens[1:])
    if decoder.cache == "static" and decoder.masks_audio:  # they may be filled up, so that steps can be recorded
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


def widest(profiles: tuple[Profile, ...]) -> Profile:
    """One profile that holds all of them, with the usual sizes of the first."""
    return {
        name: Range(
            min(profile[name].smallest for profile in profiles),
            first.usual,
            max(profile[name].largest for profile in profiles),
        )
        for name, first in profiles[0].items()
    }


def input_shapes(graph: str, encoder: EncoderFacts, decoder: DecoderFacts, width: int) -> dict[str, Shape]:
    """Shape of every input of `graph`; `width` is that of `encoder_hidden_states`."""
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
    """Smallest, usual and largest shape."""
    ends = [asdict(Range(size, size, size) if isinstance(size, int) else profile[size]) for size in shape]
    smallest, usual, largest = (tuple(int(end[name]) for end in ends) for name in ("smallest", "usual", "largest"))
    return smallest, usual, largest


def _samples(bundle: Bundle, limits: ProfileLimits) -> Range:
    """Model input of the seconds of audio, within what the encoder takes."""
    encoder = bundle.manifest.encoder
    least, most = encoder.min_length, encoder.max_length
    lengths = [_input_length(bundle, seconds) for seconds in limits.seconds]
    if most is None and lengths[2] < least:
        raise EngineError(f"profile limits: seconds is {limits.seconds!r}, and the encoder needs {least:,} samples")
    padding = 0 if encoder.feature_size is None else 1  # to an even number of analysis frames
    smallest, usual, largest = (
        max(least, length if most is None else min(length, most))
        for length in (lengths[0], lengths[1], lengths[2] + padding)
    )
    return Range(smallest, usual, largest)


def _input_length(bundle: Bundle, seconds: float) -> int:
    """Samples or feature frames; 0 of audio that is too short for a frame."""
    encoder = bundle.manifest.encoder
    if not bundle.has(PREPROCESSOR_CONFIG):
        return round(seconds * (_WAVEFORM_RATE if encoder.feature_size is None else _FEATURE_RATE))
    extractor = read_feature_extractor(bundle.path(PREPROCESSOR_CONFIG))
    try:
        return extractor.input_length(round(seconds * extractor.sampling_rate), "the audio")
    except AudioError:  # an extractor of pictures takes no more than one
        return 0 if seconds < _SECOND else encoder.max_length or 0


def _frames(samples: Range, encoder: EncoderFacts) -> Range:
    """Frames of the encoder's output; never fewer than there are, for the largest."""
    stride, extra = encoder.frame_stride or encoder.stride, encoder.extra_frames
    usual, largest = (length // stride + extra for length in (samples.usual, samples.largest))
    smallest = largest if samples.smallest == samples.largest else 1
    return Range(smallest, max(usual, smallest), largest)


def _positions(tokens: int, decoder: DecoderFacts) -> int:
    return tokens if decoder.max_positions is None else min(tokens, decoder.max_positions)
