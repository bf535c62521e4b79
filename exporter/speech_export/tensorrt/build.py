"""Builds a TensorRT engine from a graph. TensorRT needs the GPU that will run it; TensorRT-RTX needs no GPU."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from speech_runtime.atomic.writing import write_bytes
from speech_runtime.backends.tensorrt.library import Log, TensorRt
from speech_runtime.backends.tensorrt.profiles import Profile, shape_ranges
from speech_runtime.bundle.profile_limits import ProfileLimits
from speech_runtime.paths import expanded

from ..errors import ExportError

OnStep = Callable[[str, int, int], None]
"""Function that is called with the phase of the build, the steps done in it, and the number of its steps."""


@dataclass(frozen=True)
class BuildOptions:
    """Options of a build.

    Attributes:
        limits: Limits of the inputs.
        weights: "included" in the engines, or "stripped": taken from the graphs at each load.
        tf32: If true, round the inputs of float32 products to TF32, with 10 bits of mantissa: faster, but the results
            differ from the CPU's.
        timing_cache: File with kernel timings, read if it exists and written after the build; TensorRT only.
        compute_capabilities: Compute capabilities of the GPUs to build for, such as "8.9"; TensorRT-RTX only. Empty
            for all that it supports but 7.5: `speech_runtime.backends.tensorrt.supported_gpus.RTX_GPUS`.
    """

    limits: ProfileLimits = field(default_factory=ProfileLimits)
    weights: Literal["included", "stripped"] = "included"
    tf32: bool = False
    timing_cache: Path | None = None
    compute_capabilities: tuple[str, ...] = ()

    def check(self, tensorrt: TensorRt) -> None:
        """Check that `tensorrt` supports these options.

        Raises:
            ExportError: It does not.
        """
        if tensorrt.flavor == "tensorrt_rtx" and self.timing_cache is not None:
            raise ExportError(
                "TensorRT-RTX chooses kernels without timing them on a GPU, so it has no timing cache: leave out "
                "--trt-timing-cache"
            )
        if tensorrt.flavor == "tensorrt" and self.compute_capabilities:
            raise ExportError(
                "TensorRT builds for the GPU of this machine only: leave out --trt-compute-capability, or build with "
                "--trt-flavor tensorrt_rtx"
            )
        for capability in self.compute_capabilities:
            _compute_capability(tensorrt, capability)


def build_engine(
    tensorrt: TensorRt,
    graph: Path,
    profiles: Sequence[Profile],
    output: Path,
    options: BuildOptions | None = None,
    on_step: OnStep | None = None,
) -> None:
    """Parse `graph` and write its engine to `output`, in the precision of the graph (a strongly typed network).

    Args:
        tensorrt: TensorRT library.
        graph: ONNX file of a bundle.
        profiles: Ranges of all its dynamic dimensions.
        output: File to write the engine to.
        options: Options of the build.
        on_step: Function that is called after each step, see `OnStep`.

    Raises:
        ExportError: TensorRT refuses the graph, or cannot build here.
        KeyboardInterrupt: Ctrl-C, or `on_step` raised it; the build has ended, and nothing is written.
    """
    monitor = _monitor(tensorrt.module, on_step)
    # In another thread, because Python raises KeyboardInterrupt in the main thread, in the next line of Python that
    # runs there. During a build that is a callback, and TensorRT swallows exceptions in its log callback.
    with ThreadPoolExecutor(1) as thread:
        build = thread.submit(_build, tensorrt, graph, profiles, output, options or BuildOptions(), monitor)
        try:
            build.result()
        except KeyboardInterrupt:
            monitor.interrupt()
            raise


def _build(
    tensorrt: TensorRt, graph: Path, profiles: Sequence[Profile], output: Path, options: BuildOptions, monitor: Any
) -> None:
    trt, log = tensorrt.module, Log(tensorrt)
    try:
        builder = trt.Builder(log.sink)
    except TypeError as error:  # The constructor returned nothing.
        raise ExportError(
            f"{tensorrt.name} cannot build here: {log.last_error}. It needs the NVIDIA GPU that is to run the engines; "
            "--trt-flavor tensorrt_rtx builds without one"
        ) from error
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log.sink)
    if not parser.parse_from_file(str(graph)):
        errors = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
        raise ExportError(f"{tensorrt.name} cannot parse {graph.name}: {errors or log.last_error}")
    config = _configuration(tensorrt, builder, options)
    for ranges in profiles:
        profile = builder.create_optimization_profile()
        for name, shapes in _shapes(network, ranges, graph).items():
            profile.set_shape(name, *shapes)
        config.add_optimization_profile(profile)
    config.progress_monitor = monitor
    engine = builder.build_serialized_network(network, config)
    if monitor.interrupted:
        raise KeyboardInterrupt
    if engine is None:
        raise ExportError(f"{tensorrt.name} cannot build {graph.name}: {log.last_error}{_hint(tensorrt, options)}")
    with output.open("wb") as file:
        file.write(memoryview(engine).cast("B"))
    if options.timing_cache is not None:
        write_bytes(Path(expanded(options.timing_cache)), memoryview(config.get_timing_cache().serialize()).cast("B"))


def _configuration(tensorrt: TensorRt, builder: Any, options: BuildOptions) -> Any:
    trt, config = tensorrt.module, builder.create_builder_config()
    if not options.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if options.weights == "stripped":
        config.set_flag(trt.BuilderFlag.STRIP_PLAN)
    if options.compute_capabilities:
        config.num_compute_capabilities = len(options.compute_capabilities)
        for index, capability in enumerate(options.compute_capabilities):
            config.set_compute_capability(_compute_capability(tensorrt, capability), index)
    if options.timing_cache is not None:
        timings = Path(expanded(options.timing_cache))
        known = timings.read_bytes() if timings.exists() else b""
        config.set_timing_cache(config.create_timing_cache(known), ignore_mismatch=False)
    return config


def _compute_capability(tensorrt: TensorRt, capability: str) -> Any:
    known = tensorrt.module.ComputeCapability.__members__
    name = f"SM{capability.replace('.', '')}"
    if name not in known:
        numbers = (known_name.removeprefix("SM") for known_name in known if known_name.startswith("SM"))
        raise ExportError(
            f"{tensorrt.name} {tensorrt.version} does not know the compute capability {capability!r}; it knows "
            f"{', '.join(f'{number[:-1]}.{number[-1]}' for number in numbers)}: for another GPU build with TensorRT "
            "itself, on a machine that has this GPU (--trt-flavor tensorrt), or export with --target cuda"
        )
    return known[name]


def _shapes(network: Any, ranges: Profile, graph: Path) -> dict[str, Any]:
    """Return the smallest, usual and largest shape of every input."""
    shapes = {}
    for index in range(network.num_inputs):
        value = network.get_input(index)
        shape = tuple(size if size >= 0 else value.get_dimension_name(axis) for axis, size in enumerate(value.shape))
        missing = [size for size in shape if not isinstance(size, int) and size not in ranges]
        if missing:
            raise ExportError(f"the dimension {missing[0]} of {value.name} in {graph.name} has no range")
        shapes[value.name] = shape_ranges(shape, ranges)
    return shapes


def _monitor(trt: Any, on_step: OnStep | None) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # the library has no types
        """Passes each step to `on_step`, and ends the build at the next step after `interrupt`."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.interrupted = False
            self.steps: dict[str, int] = {}

        def interrupt(self) -> None:
            self.interrupted = True

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:  # noqa: ARG002
            self.steps[phase_name] = num_steps
            self._report(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._report(phase_name, step + 1)
            return not self.interrupted

        def phase_finish(self, phase_name: str) -> None:
            self._report(phase_name, self.steps[phase_name])

        def _report(self, phase: str, done: int) -> None:
            if on_step is None:
                return
            try:
                on_step(phase, done, self.steps[phase])
            except KeyboardInterrupt:  # It must not pass through TensorRT.
                self.interrupt()

    return Monitor()


def _hint(tensorrt: TensorRt, options: BuildOptions) -> str:
    if tensorrt.flavor == "tensorrt_rtx" and options.weights == "stripped":
        return ". Without weights, TensorRT-RTX needs a GPU to build; --trt-weights included needs none"
    return ""
