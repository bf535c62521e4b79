"""Audio to measure a bundle on: files, a directory of files with their transcripts, or generated noise and tones."""

import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, repeat, takewhile
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from speech_runtime import AudioError
from speech_runtime.audio import AUDIO_SUFFIXES, read_audio
from speech_runtime.audio.features import FeatureExtractor, WaveformExtractor
from speech_runtime.bundle.model_facts import EncoderFacts
from speech_runtime.bundle.safe_files import is_directory, is_there
from speech_runtime.paths import expanded

from ..errors import ExportError, shortened

REFERENCES = "reference.tsv"
"""Name of the table of transcripts in a directory, with the columns `file` and `text` and a tab between them."""

_CLIPS = 4
_PAUSE = 0.01
"""Loudness between bursts, as a share of theirs. In digital silence all frames would be equal: their equal rounding
errors would add up in long sums instead of averaging out, and a graph that mixes frames up would go unnoticed."""
_BATCH = 4

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Batch:
    """Padded model input.

    Attributes:
        inputs: Model input float32 [batch, samples] or [batch, time, features].
        attention_mask: Mask int64 [batch, samples or time], 1 where there is audio.
        texts: Transcript of each clip; None where it is not known.
    """

    inputs: NDArray[np.float32]
    attention_mask: NDArray[np.int64]
    texts: tuple[str | None, ...]


@dataclass(frozen=True)
class AudioSet:
    """Batches to measure on.

    Attributes:
        description: Description for the manifest.
        batches: Batches of clips of similar length.
        speech: True if the clips are audio files, on which accuracy can be measured.
    """

    description: str
    batches: tuple[Batch, ...]
    speech: bool

    @property
    def clips(self) -> int:
        """Number of clips in all batches."""
        return sum(len(batch.inputs) for batch in self.batches)


def audio_set(
    encoder: EncoderFacts,
    extractor: FeatureExtractor | None,
    files: Sequence[str | Path],
    directory: str | Path | None = None,
) -> AudioSet:
    """Return the clips of `files` and `directory` in batches; if neither is given, noise and tones.

    Args:
        encoder: Facts of the encoder.
        extractor: Feature extractor of the bundle; None if it has none.
        files: Audio files.
        directory: Directory with more audio files and perhaps `reference.tsv`.

    Raises:
        ExportError: `directory` has no audio, or there is no feature extractor for the files.
        AudioError: A file cannot be read, or is too short or too long for the model.
    """
    paths, texts = [Path(file) for file in files], dict[str, str]()
    if directory is not None:
        paths += audio_files(directory)
        texts = reference_texts(Path(expanded(directory)))
    if extractor is None and encoder.feature_size is not None:
        if paths:
            raise ExportError(
                "the bundle has no feature extractor that the runtime knows, so audio files cannot be used to verify "
                "it; leave --audio and --calibration-audio out"
            )
        return AudioSet("random features", (_random_features(encoder),), speech=False)
    extractor = extractor or WaveformExtractor(return_attention_mask=True)
    if not paths:
        clips = generated_audio(encoder, extractor)
        batch = Batch(*extractor(clips), (None,) * len(clips))
        return AudioSet("generated noise and tones", (batch,), speech=False)
    spoken = [(_read(path, extractor), texts.get(path.name)) for path in paths]
    spoken.sort(key=lambda clip: len(clip[0]))
    batches = tuple(
        Batch(*extractor([samples for samples, _ in some]), tuple(text for _, text in some))
        for some in (spoken[start : start + _BATCH] for start in range(0, len(spoken), _BATCH))
    )
    return AudioSet(f"{len(paths)} files", batches, speech=True)


def _read(path: Path, extractor: FeatureExtractor) -> Samples:
    samples = read_audio(path, extractor.sampling_rate)
    extractor.input_length(samples.size, str(path))  # An error names the file, and not its place in a batch.
    return samples


def audio_files(directory: str | Path) -> list[Path]:
    """Return the audio files in `directory` itself, sorted by name.

    Raises:
        ExportError: There are none, or the directory cannot be read.
    """
    directory = Path(expanded(directory))
    if not is_directory(directory):
        raise ExportError(f"--calibration-audio {directory} is not a directory; name one with audio files in it")
    try:
        files = sorted(path for path in directory.iterdir() if path.suffix.lower() in AUDIO_SUFFIXES)
    except OSError as error:
        raise ExportError(
            f"--calibration-audio {directory} cannot be read: {error.strerror}; check its permissions"
        ) from error
    if not files:
        raise ExportError(
            f"--calibration-audio {directory} has no audio (.wav, .flac, .mp3 or alike); put some speech of the "
            "kind that the model is for in it, or leave the option out"
        )
    return files


def reference_texts(directory: Path) -> dict[str, str]:
    """Return the transcripts in `reference.tsv` by the names of the files in `directory`; empty if there is no table.

    Raises:
        ExportError: The table cannot be read, lacks a column, or names files that do not exist.
    """
    path = directory / REFERENCES
    if not is_there(path):
        return {}
    with _opened(path) as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        if not {"file", "text"} <= set(rows.fieldnames or ()):
            raise ExportError(f"{path} needs the columns file and text, with a tab between them, in its first line")
        texts = {row["file"]: row["text"] or "" for row in rows}
    missing = [name for name in texts if not is_there(directory / name)]
    if missing:
        raise ExportError(f"{path} names files that do not exist: {shortened(missing)}; remove their lines")
    return texts


def _opened(path: Path) -> TextIO:
    try:
        return path.open(newline="", encoding="utf-8")
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error.strerror}; check its permissions, or remove it") from error


def generated_audio(encoder: EncoderFacts, extractor: FeatureExtractor, seed: int = 0) -> list[Samples]:
    """Return bursts of noise and tones, to measure on if no speech is given.

    Args:
        encoder: Facts of the encoder, whose shortest and longest input they respect.
        extractor: Feature extractor of the bundle.
        seed: Seed of the noise.

    Returns:
        Clips of different, odd lengths around two seconds, float32 [samples]; shorter ones if the encoder or the
        feature extractor takes no more.
    """
    lengths = _lengths(encoder, extractor)
    return list(_generated(lengths, extractor.sampling_rate, np.random.default_rng(seed)))


def _lengths(encoder: EncoderFacts, extractor: FeatureExtractor) -> list[int]:
    """Return the number of samples of each clip; if no length fits, the encoder's refusal is the better error."""

    def fits(samples: int) -> bool:
        try:
            length = extractor.input_length(samples)
        except AudioError:
            return False
        return encoder.min_length <= length <= (encoder.max_length or length)

    shortest = encoder.min_length if encoder.feature_size is None else 0
    wanted = [max(shortest, int(extractor.sampling_rate * (0.9 + 0.57 * clip)) + clip) for clip in range(_CLIPS)]
    shrinking = takewhile(bool, accumulate(repeat(wanted[-1]), lambda length, _: length * 19 // 20))
    longest = next(filter(fits, shrinking), wanted[-1])
    scaled = [length * longest // wanted[-1] for length in wanted]
    return [length if fits(length) else longest for length in scaled]


def _generated(lengths: Sequence[int], sampling_rate: int, generator: np.random.Generator) -> Iterator[Samples]:
    for clip, length in enumerate(lengths):
        time = np.arange(length) / sampling_rate
        tone = np.sin(2 * np.pi * (110 * 2**clip) * time * (1 + 0.1 * np.sin(2 * np.pi * 2 * time)))
        bursts = np.maximum(np.sin(2 * np.pi * 3 * time), _PAUSE)
        yield (0.1 * bursts * (tone + generator.standard_normal(time.size))).astype(np.float32)


def _random_features(encoder: EncoderFacts) -> Batch:
    """Return random features in a padded batch, for an encoder without a feature extractor."""
    generator = np.random.default_rng(0)
    longest = min(encoder.min_length + 150 * encoder.stride, encoder.max_length or sys.maxsize)
    lengths = np.linspace(encoder.min_length, longest, _CLIPS).astype(np.int64)[:, None]
    mask = (np.arange(longest) < lengths).astype(np.int64)
    features = generator.standard_normal((*mask.shape, encoder.feature_size or 1)) * mask[:, :, None]
    return Batch(features.astype(np.float32), mask, (None,) * _CLIPS)
