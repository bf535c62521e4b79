"""The bundle: a directory of graphs, configuration and a manifest. The one contract between exporter and runtime."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..atomic.file import write_text
from ..dataclass_json import FieldError, from_json, listed, shown
from ..errors import BundleError
from .external_data import external_data_problems
from .facts import DecoderFacts as DecoderFacts
from .facts import EncoderFacts as EncoderFacts
from .file_facts import FileFacts as FileFacts
from .graph_io import GRAPHS
from .pinned import PinnedDirectory, pinned
from .profile_limits import ProfileLimits, Range
from .regular_files import is_there, read_json, unreadable

FORMAT_VERSION = 2
MANIFEST = "bundle.json"
CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
PREPROCESSOR_CONFIG = "preprocessor_config.json"
TOKENIZER = "tokenizer.json"
ENGINES = "engines"
Flavor = Literal["tensorrt", "tensorrt_rtx"]
"""Of TensorRT: the one for data centres, or TensorRT-RTX."""

REQUIRED_FILES = (*(f"{graph}.onnx" for graph in GRAPHS), GENERATION_CONFIG)


@dataclass(frozen=True)
class Verification:
    """The exported graphs against the torch model, on the same audio; fp16 as a GPU rounds it.

    Attributes:
        audio: what it is.
        clips: of it.
        max_logprob_difference: the largest; of all words in a float32 bundle, else of torch's 64 best ones each time.
        greedy_agreement: share of equal tokens, position by position.
        beam_agreement: likewise, with `beams` beams.
        beams: see `beam_agreement`.
        token_agreement: share of positions of torch's own sequences at which the best next token is the same.
        mean_logprob_difference: like `max_logprob_difference`.
        p99_logprob_difference: what 99 of 100 differences are below.
        word_error_rate: of the bundle with `beams` beams, where it is known what was said: 0.01 is one in a hundred.
        reference_word_error_rate: of torch.
        torch_rounding: largest difference of torch's own log-probabilities, float32 against float64. It is measured
            only where `max_logprob_difference` is beyond the plain limit, and only then written.
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
    """How the graphs of a bundle below float32 came about.

    Attributes:
        encoder: precision of the encoder.
        decoder: precision of the two decoder graphs.
        op_kinds: what was quantised; nothing where the graphs are fp16.
        block_size: weights that share a scale; None where no graph is int4.
        accuracy_level: of `MatMulNBits`; None likewise.
        kept_float32: modules left in float32, on request or because the accuracy asked for it; of fp16 also the nodes,
            encoder output and caches that are float32 because half does not hold their numbers.
    """

    encoder: str
    decoder: str
    op_kinds: tuple[str, ...]
    block_size: int | None
    accuracy_level: int | None
    kept_float32: tuple[str, ...]

    @property
    def multiplies_bytes(self) -> bool:
        """Whether a graph has products of int8; one with int4 weights has them too."""
        return not {"int8", "int4"}.isdisjoint((self.encoder, self.decoder))


@dataclass(frozen=True)
class EngineSet:
    """TensorRT engines of all graphs of a bundle, and what they were built with.

    Attributes:
        directory: of the engines, within `engines`.
        flavor: the library that built them.
        version: of the library.
        compute_capabilities: of the GPUs that they run on; empty for all that TensorRT-RTX supports by default.
        weights: whether they are in the engines, or taken from the graphs at each load.
        tf32: whether float32 products may be rounded to TF32.
        limits: that they were asked to hold.
        profiles: of each graph, in the order of the engine: ranges of its dynamic dimensions.
        graphs: SHA-256 of each file of the graphs that they were built of.
        files: the engines.
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
        """The engines' files, seen from the bundle's directory."""
        return [f"{ENGINES}/{self.directory}/{name}" for name in self.files]


@dataclass(frozen=True)
class Manifest:
    """`bundle.json`."""

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

    @classmethod
    def read(cls, directory: Path) -> "Manifest":
        """Read the manifest in `directory`, whatever else is there.

        Raises:
            BundleError: there is none, or it is not valid; every problem is listed.
        """
        with pinned_bundle(directory) as pin:
            return _read_manifest(directory, pin.path)

    @property
    def strays(self) -> list[str]:
        """Names of files that are more than a name: nothing outside the bundle is ever read or downloaded."""
        names = [*self.files, *(name for engines in self.engines for name in (engines.directory, *engines.files))]
        return [name for name in names if not _is_plain(name)]

    @property
    def graph_hashes(self) -> dict[str, str]:
        """SHA-256 of each file of the graphs."""
        return {name: file.sha256 for name, file in self.files.items() if ".onnx" in name}

    def content(self) -> dict[str, Any]:
        """Return what is written; a rounding that was not measured is left out."""
        content = asdict(self)
        if self.verification is not None and self.verification.torch_rounding is None:
            del content["verification"]["torch_rounding"]  # the first release refuses fields that it does not know
        return content

    def write(self, directory: Path) -> None:
        """Write the manifest into the bundle's `directory`, whole or not at all."""
        write_text(directory / MANIFEST, json.dumps(self.content(), indent=2) + "\n")


@dataclass(frozen=True)
class Bundle:
    """A checked bundle on disk.

    Attributes:
        directory: its name.
        manifest: what is in it.
        root: what its files are read through, while it is pinned; its directory where it is None.
    """

    directory: Path
    manifest: Manifest
    root: Path | None = None

    @classmethod
    def open(cls, directory: str | Path, *, check_hashes: bool = True) -> "Bundle":
        """Read and check the bundle in `directory`.

        Args:
            directory: where `speech-export` wrote it.
            check_hashes: compare the SHA-256 of every file, about a second for 2 GB; sizes are always compared.

        Raises:
            BundleError: there is no bundle, or it is damaged; every problem is listed.
        """
        directory = Path(directory)
        with pinned_bundle(directory) as pin:
            return cls(directory, cls.of_pinned(directory, pin, check_hashes=check_hashes).manifest)

    @classmethod
    def of_pinned(cls, directory: Path, pin: PinnedDirectory, *, check_hashes: bool) -> "Bundle":
        """The bundle in a directory that is held open, checked; see `open`. Every file of it is watched."""
        pin.watch(MANIFEST)
        manifest = _read_manifest(directory, pin.path)
        if problems := list(_file_problems(pin, manifest, check_hashes)):
            raise BundleError(
                f"the bundle {directory} is damaged: {listed(problems)}. Copy it again, or export it again "
                "with speech-export"
            )
        return cls(directory, manifest, pin.path)

    def path(self, name: str) -> Path:
        """The file `name` of this bundle."""
        return (self.root or self.directory) / name

    def has(self, name: str) -> bool:
        """Whether the file `name` is part of this bundle."""
        return name in self.manifest.files

    @property
    def size(self) -> int:
        """Bytes of all files together, the manifest aside."""
        return sum(file.size for file in self.manifest.files.values())


def read_configuration(path: Path) -> dict[str, Any]:
    """Read a JSON file of a bundle that holds settings by name, such as its generation_config.json.

    Raises:
        BundleError: it cannot be read, or holds something else.
    """
    try:
        content = read_json(path)
        if not isinstance(content, dict):
            raise ValueError("it is not an object of settings")
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read: {unreadable(error)}; export the model again") from error
    return content


@contextmanager
def pinned_bundle(directory: Path) -> Iterator[PinnedDirectory]:
    """Hold the directory of a bundle open while the block runs.

    Raises:
        BundleError: it is not there, or something in it cannot be read.
    """
    try:
        with pinned(directory) as pin:
            yield pin
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(
            f"there is no directory {directory}; export a model into it: speech-export MODEL -o {directory}"
        ) from None
    except OSError as error:
        raise BundleError(
            f"the bundle {directory} cannot be read: {error.strerror}; check its name and permissions"
        ) from error


def _read_manifest(directory: Path, root: Path) -> Manifest:
    """The manifest of the bundle `directory`, which is read through `root`."""
    path = directory / MANIFEST
    try:
        content = read_json(root / MANIFEST)
    except FileNotFoundError:
        hint = " (it looks like a Hugging Face checkpoint)" if is_there(root / "config.json") else ""
        raise BundleError(
            f"{directory} is not a bundle{hint}: it has no {MANIFEST}. Export it first: "
            f"speech-export {directory} -o BUNDLE"
        ) from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read: {unreadable(error)}; export the model again") from error
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise BundleError(
            f"{path} has format version {shown(version)}, this release reads {FORMAT_VERSION}; export the model again, "
            "or install the release of speech-export that wrote it"
        )
    try:
        return from_json(Manifest, content)
    except FieldError as error:
        raise BundleError(f"{path} is not valid: {error}; export the model again") from None


def _file_problems(pin: PinnedDirectory, manifest: Manifest, check_hashes: bool) -> Iterator[str]:
    yield from (f"{name} is not in {MANIFEST}" for name in REQUIRED_FILES if name not in manifest.files)
    strays = manifest.strays
    yield from (f"{shown(name)} points outside the bundle" for name in strays)
    names = manifest.files.keys() - strays
    sizes = {name: manifest.files[name].size for name in names}
    for name in sorted(names):
        path = pin.watch(name)
        if problem := manifest.files[name].problem(path, "the export", check_hashes=check_hashes):
            yield problem
        elif name.endswith(".onnx"):
            yield from external_data_problems(path, sizes)


def _is_plain(name: str) -> bool:
    """Whether this is the name of a file, and nothing that leads elsewhere or that no file can have."""
    return name not in ("", ".", "..") and not set(name) & set("/\\\0") and name.isprintable()
