"""Adds TensorRT engines of all graphs to an existing bundle. Needs TensorRT, but neither torch nor onnx."""

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
from speech_runtime.paths import expanded

from ..bundle_writer.staging import ENGINES_DIRECTORY, HALF_WRITTEN, full_disk_named
from ..errors import ExportError
from .build import BuildOptions, OnStep, build_engine

OnGraph = Callable[[str], OnStep | None]
"""Function that is called with the name of each graph before it is built. It may return an `OnStep` for that build."""


def add_engines(
    directory: str | Path,
    tensorrt: TensorRt | None = None,
    options: BuildOptions | None = None,
    on_graph: OnGraph = lambda _: None,
) -> EngineSet:
    """Build engines of all graphs of the bundle in `directory`, and add them to its manifest.

    They replace engines of the same library for the same GPUs. If anything fails before they are complete (Ctrl-C
    included), the bundle stays as it was.

    Args:
        directory: Directory of the bundle.
        tensorrt: Library that builds the engines; the installed one if None.
        options: Options of the build.
        on_graph: Function that is called for each graph, see `OnGraph`.

    Returns:
        The new entry of the manifest.

    Raises:
        BundleError: There is no bundle, or it is damaged.
        EngineError: The limits exclude every input of the model.
        ExportError: The graphs are not for TensorRT; or an engine cannot be built or written.
    """
    tensorrt, options = tensorrt or import_tensorrt(), options or BuildOptions()
    options.check(tensorrt)
    bundle = Bundle.open(Path(expanded(directory)).absolute())
    check_target(bundle.directory, bundle.manifest)
    options = replace(options, limits=_with_cache_length(options.limits, bundle.manifest.decoder))
    profiles = graph_profiles(bundle, options.limits)
    capabilities = options.compute_capabilities
    if tensorrt.flavor == "tensorrt":
        capabilities = (Cuda().compute_capability,)
    with _staging_beside(bundle.directory) as staging:
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
        _publish_engines(bundle.directory, built, staging)
    return built


def check_target(directory: Path, manifest: Manifest) -> None:
    """Check that the graphs of the bundle in `directory` have only operators that TensorRT knows.

    Raises:
        ExportError: They were exported for the CPU, or for CUDA.
    """
    if manifest.target != "tensorrt":
        other = "the CPU" if manifest.target == "cpu" else "CUDA"
        raise ExportError(
            f"{directory} was exported for {other}, with operators that only ONNX Runtime knows; export the model for "
            f"TensorRT: speech-export MODEL -o {directory} --overwrite --target tensorrt --engines"
        )


def _with_cache_length(limits: ProfileLimits, decoder: DecoderFacts) -> ProfileLimits:
    """Return the limits with the number of tokens that a static cache holds, whatever was given for it."""
    length = decoder.cache_length
    return limits if length is None else replace(limits, tokens=(1, min(limits.tokens[1], length), length))


@contextmanager
def _staging_beside(directory: Path) -> Iterator[Path]:
    """Yield an empty directory beside the bundle, on the same disk; it is removed in the end unless it was moved."""
    try:
        with full_disk_named(directory.parent), staging_directory(directory) as staging:
            yield staging
    except PermissionError as error:
        raise ExportError(f"cannot write to {directory.parent}: {error.strerror}; copy the bundle elsewhere") from error


def _publish_engines(directory: Path, built: EngineSet, staging: Path) -> None:
    """Move the engines into the bundle under a new name, then replace its manifest atomically by one that lists them.

    Processes that build engines for the same bundle take turns here. The directory is held open, so that nothing is
    written into another bundle that takes its place.
    """
    with pinned_bundle(directory) as pin, locked_directory(pin.path) as locked:
        root = pin.path
        manifest = Manifest.read(root)  # Read again: another process may have added engines since.
        if manifest.graph_hashes != built.graphs:
            raise ExportError(f"{directory} was replaced while its engines were built; build them again")
        replaced = [engines for engines in manifest.engines if _same_library_and_gpus(engines, built)]
        kept = [engines for engines in manifest.engines if engines not in replaced]
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
    """Remove engines that were replaced or whose build was killed, and half-written manifests."""
    for path in (root / ENGINES).iterdir():
        if path.name not in listed and ENGINES_DIRECTORY.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)
    for path in root.iterdir():
        if HALF_WRITTEN.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _same_library_and_gpus(one: EngineSet, other: EngineSet) -> bool:
    return (one.flavor, one.compute_capabilities) == (other.flavor, other.compute_capabilities)
