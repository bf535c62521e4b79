"""`bundle.json`, the manifest of a bundle: its fields, and how it is read and written."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..atomic.writing import write_text
from ..dataclass_json import FieldError, from_json
from ..errors import BundleError
from .formats import in_current_format
from .graph_io import GRAPHS
from .model_facts import DecoderFacts, EncoderFacts, PromptTemplate
from .profile_limits import ProfileLimits, Range
from .safe_files import FileFacts, PinnedDirectory, is_there, pinned, read_json, similar_directory, unreadable

MANIFEST = "bundle.json"
CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
PREPROCESSOR_CONFIG = "preprocessor_config.json"
TOKENIZER = "tokenizer.json"
ENGINES = "engines"
Flavor = Literal["tensorrt", "tensorrt_rtx"]
"""TensorRT for data centres, or TensorRT-RTX."""

REQUIRED_FILES = (*(f"{graph}.onnx" for graph in GRAPHS), GENERATION_CONFIG)


@dataclass(frozen=True)
class Verification:
    """Comparison of the exported graphs with the torch model on the same audio; fp16 is rounded as on a GPU.

    Attributes:
        audio: Description of the audio.
        clips: Number of clips.
        max_logprob_difference: Largest difference of a log-probability; over the whole vocabulary in a float32 bundle,
            otherwise over the 64 tokens that torch ranks highest at each position.
        greedy_agreement: Share of equal tokens in greedy search, position by position.
        beam_agreement: Share of equal tokens with `beams` beams, position by position.
        beams: Number of beams of `beam_agreement` and of the word error rates.
        token_agreement: Share of positions in torch's own sequences where the most likely next token is the same.
        mean_logprob_difference: Mean difference, over the same tokens as `max_logprob_difference`.
        p99_logprob_difference: 99th percentile of the same differences.
        word_error_rate: Word error rate of the bundle, 0.01 for 1 %; None where the audio has no transcripts.
        reference_word_error_rate: Word error rate of torch.
        torch_rounding: Largest difference between torch's own log-probabilities in float32 and float64. It is measured
            and written only where `max_logprob_difference` exceeds the plain limit.
    """

    audio: str
    clips: int
    max_logprob_difference: float
    greedy_agreement: float
    beam_agreement: float
    beams: int
    token_agreement: float | None = None
    mean_logprob_difference: float | None = None
    p99_logprob_difference: float | None = None
    word_error_rate: float | None = None
    reference_word_error_rate: float | None = None
    torch_rounding: float | None = None


@dataclass(frozen=True)
class Quantization:
    """Conversion of the graphs of a bundle below float32.

    Attributes:
        encoder: Precision of the encoder.
        decoder: Precision of the two decoder graphs.
        op_kinds: Kinds of operators that were quantised; empty for fp16.
        block_size: Number of weights that share a scale; None where no graph is int4.
        accuracy_level: Accuracy level of `MatMulNBits`; None where no graph is int4.
        kept_float32: Modules left in float32, on request or for accuracy; for fp16 also the nodes, the encoder output
            and the caches whose values exceed the range of half precision.
    """

    encoder: str
    decoder: str
    op_kinds: tuple[str, ...]
    block_size: int | None
    accuracy_level: int | None
    kept_float32: tuple[str, ...]

    @property
    def multiplies_bytes(self) -> bool:
        """True if a graph multiplies int8; one with int4 weights does, too."""
        return not {"int8", "int4"}.isdisjoint((self.encoder, self.decoder))


@dataclass(frozen=True)
class Trimming:
    """What an export with --vocabulary left out, and what that costs. `DecoderFacts.kept_tokens` has the tokens.

    Attributes:
        files: Names of the files of tokens, each with what it holds.
        weights: Number of weights of embedding and head that were left out.
        bytes_saved: Bytes that these weights would take in the precision of the decoder.
        text_words: Number of words of the text of --vocabulary-check; None where none was given.
        lost_words: Number of these words that need a token which was left out.
        lost_examples: The most frequent of them.
        changed_words: Word error rate of torch with these tokens against torch with all tokens, on the audio of the
            verification: 0.01 where one word in a hundred changes. None where the audio is no speech.
        full_word_error_rate: Word error rate of torch with all tokens; None where the audio has no transcripts.
    """

    files: tuple[str, ...]
    weights: int
    bytes_saved: int
    text_words: int | None = None
    lost_words: int | None = None
    lost_examples: tuple[str, ...] = ()
    changed_words: float | None = None
    full_word_error_rate: float | None = None


@dataclass(frozen=True)
class EngineSet:
    """TensorRT engines of all graphs of a bundle, and how they were built.

    Attributes:
        directory: Name of their directory, within `engines`.
        flavor: Library that built them.
        version: Version of that library.
        compute_capabilities: Compute capabilities that they run on; empty for TensorRT-RTX's default, which is
            `backends.tensorrt.supported_gpus.RTX_GPUS`.
        weights: "included" in the engines, or "stripped" and taken from the graphs at each load.
        tf32: If true, float32 products may be rounded to TF32.
        limits: Limits that they were built for.
        profiles: Ranges of the dynamic dimensions of each graph, one mapping for each optimisation profile.
        graphs: SHA-256 of each file of the graphs that they were built from.
        files: Sizes and hashes of the engines.
    """

    directory: str
    flavor: Flavor
    version: str
    compute_capabilities: tuple[str, ...]
    weights: Literal["included", "stripped"]
    tf32: bool
    limits: ProfileLimits
    profiles: dict[str, tuple[dict[str, Range], ...]]
    graphs: dict[str, str]
    files: dict[str, FileFacts]

    @property
    def paths(self) -> list[str]:
        """Paths of the engines, relative to the bundle's directory."""
        return [f"{ENGINES}/{self.directory}/{name}" for name in self.files]


@dataclass(frozen=True)
class Manifest:
    """Content of `bundle.json`.

    Attributes:
        format_version: Format of the bundle; see `bundle.formats`.
        source: Checkpoint that was exported.
        producer: Versions of Python and of the packages that made the bundle.
        precision: Lowest precision of the graphs.
        target: Backend that the graphs were made for.
        encoder: Facts of the encoder.
        decoder: Facts of the decoder.
        verification: Comparison with the torch model; None where it was not made.
        files: Sizes and hashes of the bundle's files, the manifest and the engines aside.
        quantization: Conversion of the graphs; None in float32.
        engines: Sets of TensorRT engines.
        prompt: Tokens in front of every text; None for a start token alone, and for a language in its place.
        trimming: Tokens that were left out; None where all are there.
    """

    format_version: int
    source: str
    producer: dict[str, str]
    precision: Literal["fp32", "fp16", "int8", "int4"]
    target: Literal["cpu", "cuda", "tensorrt"]
    encoder: EncoderFacts
    decoder: DecoderFacts
    verification: Verification | None
    files: dict[str, FileFacts]
    quantization: Quantization | None = None
    engines: tuple[EngineSet, ...] = ()
    prompt: PromptTemplate | None = None
    trimming: Trimming | None = None

    def __post_init__(self) -> None:
        """Raise `FieldError` for a prompt that the decoder cannot take."""
        size = self.decoder.vocab_size
        if self.prompt is not None and (wrong := [token for token in self.prompt.token_ids if not 0 <= token < size]):
            raise FieldError([f"prompt has token {wrong[0]}, and the decoder's are 0 … {size - 1}"])

    @property
    def prompt_length(self) -> int:
        """Largest number of tokens in front of a text, the start token included."""
        return 1 if self.prompt is None else 1 + self.prompt.longest

    @property
    def example_language(self) -> str | None:
        """Language to give in measurements; None where a call need not give one."""
        return None if self.prompt is None else self.prompt.example_language

    @classmethod
    def read(cls, directory: Path) -> "Manifest":
        """Read the manifest in `directory` and check no other file.

        Raises:
            BundleError: There is no manifest, or it is not valid; all problems are listed.
        """
        with pinned_bundle(directory) as pin:
            return cls.read_through(pin.path, directory)

    @classmethod
    def read_through(cls, root: Path, directory: Path) -> "Manifest":
        """Read the manifest of the bundle `directory` through `root`, the path of the pinned directory.

        Raises:
            BundleError: See `read`.
        """
        path = directory / MANIFEST
        try:
            content = read_json(root / MANIFEST)
        except FileNotFoundError:
            hint = " (it looks like a Hugging Face checkpoint)" if is_there(root / CONFIG) else ""
            raise BundleError(
                f"{directory} is not a bundle{hint}: it has no {MANIFEST}. Export it first: "
                f"speech-export {directory} -o BUNDLE"
            ) from None
        except (OSError, ValueError) as error:
            raise BundleError(f"{path} cannot be read: {unreadable(error)}; export the model again") from error
        try:
            return from_json(cls, in_current_format(content, path))
        except FieldError as error:
            raise BundleError(f"{path} is not valid: {error}; export the model again") from None

    @property
    def unsafe_names(self) -> list[str]:
        """File names that could lead out of the bundle: nothing outside it is ever read or downloaded."""
        names = [*self.files, *(name for engines in self.engines for name in (engines.directory, *engines.files))]
        return [name for name in names if not _is_plain(name)]

    @property
    def graph_hashes(self) -> dict[str, str]:
        """SHA-256 of each file of the graphs, by name."""
        return {name: file.sha256 for name, file in self.files.items() if ".onnx" in name}

    def content(self) -> dict[str, Any]:
        """Return the manifest as JSON values, without fields that only some bundles have."""
        content = asdict(self)  # earlier releases refuse fields that they do not know
        if self.verification is not None and self.verification.torch_rounding is None:
            del content["verification"]["torch_rounding"]
        if self.prompt is None:
            del content["prompt"]
        if self.trimming is None:
            del content["trimming"]
        if self.decoder.kept_tokens is None:
            del content["decoder"]["kept_tokens"]
        return content

    def write(self, directory: Path) -> None:
        """Write the manifest into the bundle's `directory` atomically."""
        write_text(directory / MANIFEST, json.dumps(self.content(), indent=2) + "\n")


@contextmanager
def pinned_bundle(directory: Path) -> Iterator[PinnedDirectory]:
    """Hold the directory of a bundle open while the block runs.

    Raises:
        BundleError: It does not exist, or a file in it cannot be read.
    """
    try:
        with pinned(directory) as pin:
            yield pin
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(
            f"there is no directory {directory}{similar_directory(directory)}; export a model into it: "
            f"speech-export MODEL -o {directory}"
        ) from None
    except OSError as error:
        raise BundleError(
            f"the bundle {directory} cannot be read: {error.strerror}; check its name and permissions"
        ) from error


def _is_plain(name: str) -> bool:
    """Return whether `name` is a plain file name: no path, and no characters that a file name cannot have."""
    return name not in ("", ".", "..") and not set(name) & set("/\\\0") and name.isprintable()
