"""Choice of the engines in a bundle that fit the library, the GPU and the graphs; others are refused with a reason."""

from collections.abc import Iterator

from ...bundle.loading import Bundle
from ...bundle.manifest import ENGINES, EngineSet
from ...errors import EngineError
from ...install_hints import how_to_install
from .library import NAMES, TensorRt
from .supported_gpus import RTX_GPUS, rtx_refusal, runs_rtx_engines


def choose_engines(
    bundle: Bundle, tensorrt: TensorRt, compute_capability: str, *, check_hashes: bool = True
) -> EngineSet:
    """Check the engines of `bundle`, and return the first set that runs on this machine.

    Args:
        bundle: Bundle with engines.
        tensorrt: Library that will run them.
        compute_capability: Compute capability of the GPU, "8.9" for example.
        check_hashes: If true, compare the SHA-256 of their files; sizes are always compared.

    Raises:
        EngineError: TensorRT-RTX does not support the GPU; or there are no engines, or each set is stale, damaged or
            for another library or GPU; the message has the reasons.
    """
    _check_gpu(bundle, tensorrt, compute_capability)
    rebuild = f"build them here: speech-export {bundle.directory} --engines"
    refused = []
    for engines in bundle.manifest.engines:
        problems = list(_foreign(engines, tensorrt, compute_capability)) + list(_stale(engines, bundle))
        problems = problems or list(_damaged(engines, bundle, check_hashes))
        if not problems:
            return engines
        refused.append(f"{ENGINES}/{engines.directory}: {'; '.join(problems)}")
    if not refused:
        raise EngineError(f"the bundle {bundle.directory} has no engines; {rebuild}")
    raise EngineError(f"no engines of {bundle.directory} can be used: {'. '.join(refused)}; {rebuild}")


def _check_gpu(bundle: Bundle, tensorrt: TensorRt, compute_capability: str) -> None:
    built_for_it = any(compute_capability in engines.compute_capabilities for engines in bundle.manifest.engines)
    refusal = rtx_refusal(compute_capability) if tensorrt.flavor == "tensorrt_rtx" and not built_for_it else ""
    if refusal:
        raise EngineError(
            f"{refusal}: give device='cuda', which runs this bundle as it is, or build engines with TensorRT itself on "
            f"this machine: {how_to_install('tensorrt')}, then speech-export {bundle.directory} --engines --trt-flavor "
            "tensorrt"
        )


def _foreign(engines: EngineSet, tensorrt: TensorRt, compute_capability: str) -> Iterator[str]:
    if engines.flavor != tensorrt.flavor:
        yield f"they were built by {NAMES[engines.flavor]}, and {tensorrt.name} is installed"
        return
    if engines.version != tensorrt.version:
        yield (
            f"they were built by {tensorrt.name} {engines.version}, and {tensorrt.version} is installed, which reads "
            "only its own"
        )
    if engines.compute_capabilities and compute_capability not in engines.compute_capabilities:
        built_for = ", ".join(engines.compute_capabilities)
        yield f"they were built for compute capability {built_for}, and this GPU has {compute_capability}"
    elif not engines.compute_capabilities and not runs_rtx_engines(compute_capability):
        yield (
            f"they were built for compute capability {RTX_GPUS}, and this GPU has {compute_capability}; give "
            f"--trt-compute-capability {compute_capability}"
        )


def _stale(engines: EngineSet, bundle: Bundle) -> Iterator[str]:
    now = bundle.manifest.graph_hashes
    changed = [name for name in sorted({*now, *engines.graphs}) if engines.graphs.get(name) != now.get(name)]
    if changed:
        yield f"they are stale, {', '.join(changed)} changed since they were built"


def _damaged(engines: EngineSet, bundle: Bundle, check_hashes: bool) -> Iterator[str]:
    for name, expected in engines.files.items():
        path = bundle.path(ENGINES) / engines.directory / name
        if problem := expected.problem(path, "it was built", check_hashes=check_hashes):
            yield problem
