"""Engines of all graphs of a bundle that is there already. Needs TensorRT and nothing else: no torch, no onnx."""

import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from speech_runtime.atomic.system_calls import locked_directory
from speech_runtime.atomic.writing import publish, staging_directory
from speech_runtime.backends.cuda.calls import Cuda
from speech_runtime.backends.tensorrt.library import TensorRt, import_tensorrt
from speech_runtime.backends.tensorrt.profiles import graph_profiles
from speech_runtime.bundle.loading import Bundle
from speech_runtime.bundle.manifest import ENGINES, EngineSet, Manifest, pinned_bundle
from speech_runtime.bundle.model_facts import DecoderFacts
from speech_runtime.bundle.profile_limits import ProfileLimits
from speech_runtime.bundle.safe_files import FileFacts

from ..bundle_writer.staging import ENGINES_DIRECTORY, HALF_WRITTEN, full_disk_named
from ..errors import ExportError
from .build import BuildOptions, OnStep, build_engine

OnGraph = Callable[[str], OnStep | None]
"""Told which graph is built; what it returns is told of its steps."""


def add_engines(
    directory: str | Path,
    tensorrt: TensorRt | None = None,
    options: BuildOptions | None = None,
    on_graph: OnGraph = lambda _: None,
) -> EngineSet:
    """Build engines of all graphs of the bundle in `directory`, and enter them in its manifest.

    They take the place of those of the same library for the same GPUs. Whatever goes wrong before they are complete
    (Ctrl-C too) leaves the bundle as it was.

    Args:
        directory: of the bundle.
        tensorrt: Library that builds them; the installed one where None.
        options: how.
        on_graph: see `OnGraph`.

    Returns:
        What is in the manifest now.

    Raises:
        BundleError: there is no bundle, or it is damaged.
        EngineError: the limits hold nothing that the model takes.
        ExportError: the graphs are for the CPU; an engine cannot be built, or not be written.
    """
    tensorrt, options = tensorrt or import_tensorrt(), options or BuildOptions()
    options.check(tensorrt)
    bundle = Bundle.open(Path(directory).absolute())
    check_target(bundle.directory, bundle.manifest)
    options = replace(options, limits=_held(options.limits, bundle.manifest.decoder))
    profiles = graph_profiles(bundle, options.limits)
    capabilities = options.compute_capabilities
    if tensorrt.flavor == "tensorrt":
        capabilities = (Cuda().compute_capability,)
    with _beside(bundle.directory) as staging:
        for graph, ranges in profiles.items():
            build_engine(
                tensorrt,
                bundle.path(f"{graph}.onnx"),
                ranges,
                staging / f"{graph}.engine",
                options,
                on_graph(graph),
            )
        built = EngineSet(
            directory=f"{tensorrt.flavor}-{secrets.token_hex(4)}",
            flavor=tensorrt.flavor,
            version=tensorrt.version,
            compute_capabilities=capabilities,
            weights=options.weights,
            tf32=options.tf32,
            limits=options.limits,
            profiles={graph: tuple(dict(profile) for profile in ranges) for graph, ranges in profiles.items()},
            graphs=bundle.manifest.graph_hashes,
            files={path.name: FileFacts.of(path) for path in sorted(staging.iterdir())},
        )
        _enter(bundle.directory, built, staging)
    return built


def check_target(directory: Path, manifest: Manifest) -> None:
    """Check that TensorRT has a chance with the graphs of the bundle in `directory`.

    Raises:
        ExportError: they were exported for the CPU.
    """
    if manifest.target == "cpu":
        raise ExportError(
            f"{directory} was exported for the CPU, with operations that only ONNX Runtime knows; export the "
            f"model for TensorRT: speech-export MODEL -o {directory} --overwrite --target tensorrt --engines"
        )


def _held(limits: ProfileLimits, decoder: DecoderFacts) -> ProfileLimits:
    """The limits, with the tokens that a static cache has room for, whatever was asked for."""
    length = decoder.cache_length
    return limits if length is None else replace(limits, tokens=(1, min(limits.tokens[1], length), length))


@contextmanager
def _beside(directory: Path) -> Iterator[Path]:
    """An empty directory beside the bundle, on the same disk, that is gone in the end unless it was moved."""
    try:
        with full_disk_named(directory.parent), staging_directory(directory) as staging:
            yield staging
    except PermissionError as error:
        raise ExportError(f"cannot write to {directory.parent}: {error.strerror}; copy the bundle elsewhere") from error


def _enter(directory: Path, built: EngineSet, staging: Path) -> None:
    """Move the engines in under a name that no manifest has yet; the manifest, replaced in one go, makes them real.

    Builders of engines for the same bundle take turns. The directory is held open: where another bundle takes its
    place, nothing is written there.
    """
    with pinned_bundle(directory) as pin, locked_directory(pin.path) as locked:
        root = pin.path
        manifest = Manifest.read(root)  # somebody may have built others in the meantime
        if manifest.graph_hashes != built.graphs:
            raise ExportError(f"{directory} was replaced while its engines were built; build them again")
        alike = [engines for engines in manifest.engines if _take_the_same_place(engines, built)]
        kept = [engines for engines in manifest.engines if engines not in alike]
        target = root / ENGINES / built.directory
        target.parent.mkdir(exist_ok=True)
        try:
            publish(staging, target)
            replace(manifest, engines=(*kept, built)).write(root)
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise
        if locked:
            _remove_unlisted(root, {engines.directory for engines in (*kept, built)})


def _remove_unlisted(root: Path, listed: set[str]) -> None:
    """Remove engines that others take the place of, or whose builder was killed, and half-written manifests."""
    for path in (root / ENGINES).iterdir():
        if path.name not in listed and ENGINES_DIRECTORY.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)
    for path in root.iterdir():
        if HALF_WRITTEN.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _take_the_same_place(one: EngineSet, other: EngineSet) -> bool:
    return (one.flavor, one.compute_capabilities) == (other.flavor, other.compute_capabilities)
