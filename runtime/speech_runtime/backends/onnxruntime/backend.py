"""The ONNX Runtime backend: I/O binding for every execution provider."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...bundle.graph_io import DECODER_WITH_PAST, ENCODER, GRAPHS, graph_inputs, graph_outputs
from ...bundle.loading import Bundle
from ...errors import BundleError, EngineError, EngineMemoryError
from ...system import MIB, bytes_saturate, return_freed_memory
from ..base import Prepared
from ..cuda.graphs import CudaGraphs
from ..native_calls import NATIVE_CALLS
from ..options import SessionOptions
from .graph_providers import engine_cache, graph_providers
from .host_memory import is_out_of_memory, share_arena
from .optimized_graphs import cache_entry, open_through_cache
from .provider_engines import record_at_end, recorded_engines
from .providers import check_providers, import_onnxruntime, preload_libraries, raise_provider_failure

if TYPE_CHECKING:
    import onnxruntime

    Values = Mapping[str, onnxruntime.OrtValue]

Result = TypeVar("Result")

_LEVELS = {
    "disabled": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
_DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(int64)": np.dtype(np.int64),
}
_EXACT_BYTES = "session.x64quantprecision"
"""Option of a session: multiply unsigned bytes, slower and never saturating. Needs at least level "extended"."""
_SEVERITIES = {"verbose": 0, "info": 1, "warning": 2, "error": 3, "fatal": 4}
_REST_BETWEEN_RUNS = "session.force_spinning_stop"
"""Option of a session: its threads stop waiting actively when a run ends, so that the threads of the next graph, which
has its own, get the cores. Halves the time of a clip with the bundled model; no change for a large model."""
_SHARED_ARENA = "session.use_env_allocators"
_ONE_THREAD_UP_TO = 2 * MIB
"""Largest decoder, bytes, that runs on one thread, because waking another takes longer: 0.12 ms per step of the bundled
model instead of 0.18."""
_DISABLE_FUSIONS = "optimization.disable_specified_optimizers"
SLOW_FUSIONS = "SkipLayerNormFusion;BiasGeluFusion"
"""Fusions of ONNX Runtime whose CPU kernels are slower than the two operators that they replace: 6 times for an Add and
a LayerNormalization of 499 × 1024 numbers (1.32), where only the unfused kernel is vectorised."""


class OnnxRuntimeBackend:
    """The graphs of a bundle as ONNX Runtime sessions; see `base.Backend`."""

    def __init__(self, bundle: Bundle, options: SessionOptions, *, check_hashes: bool = True) -> None:
        """Load all three graphs.

        Args:
            bundle: Bundle with the graphs.
            options: Options of the sessions.
            check_hashes: If true, compare the SHA-256 of the files in the caches of optimised graphs and of engines.

        Raises:
            EngineError: ONNX Runtime or the provider is missing, or refuses an option.
            BundleError: A graph does not match the manifest.
        """
        self._runtime = import_onnxruntime(options)
        self._options = options
        self._check_hashes = check_hashes
        quantization = bundle.manifest.quantization
        self._exact_bytes = quantization is not None and quantization.multiplies_bytes and bytes_saturate()
        # Graphs for other targets are standard ONNX: they multiply bytes only once ONNX Runtime has fused them.
        of_bytes = self._exact_bytes and bundle.manifest.target == "cpu"
        if of_bytes and options.graph_optimization in ("disabled", "basic"):
            raise EngineError(
                f"graph_optimization {options.graph_optimization!r} would give wrong results: this processor has no "
                "VNNI, and ONNX Runtime computes int8 bundles exactly only from 'extended' on; choose that, or 'all'"
            )
        self._not_loaded = preload_libraries(self._runtime, options)
        cache = engine_cache(options.tensorrt, bundle, self._runtime.__version__)
        self._shares_arena = options.device == "cpu" and options.cpu_memory_arena
        if self._shares_arena:
            share_arena(self._runtime)
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}
        with recorded_engines(cache, check_hashes=check_hashes):
            for graph in GRAPHS:
                self._sessions[graph] = self._load(bundle, graph)
        record_at_end(self, self._sessions, cache)
        recorded = self._sessions[DECODER_WITH_PAST] if options.cuda.cuda_graphs else None
        self._cuda_graphs = None if recorded is None else CudaGraphs(self._runtime, recorded)
        # While ONNX Runtime records, no other thread may call CUDA.
        self._turn: AbstractContextManager[object] = nullcontext() if recorded is None else threading.RLock()
        # Read once: ONNX Runtime creates a new list of the inputs, dozens for a decoder, at every call.
        self._input_types: dict[tuple[str, str], str] = {
            (graph, node.name): node.type for graph, session in self._sessions.items() for node in session.get_inputs()
        }
        return_freed_memory()

    @property
    def on_host(self) -> bool:
        """See `Backend.on_host`."""
        return self._options.memory == "cpu"

    @property
    def recordings(self) -> int:
        """See `Backend.recordings`."""
        return self._options.cuda.cuda_graphs

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> onnxruntime.OrtValue:
        """See `Backend.allocate`."""
        if self.on_host:  # zeroed: NaNs in uninitialised memory would corrupt the calibration of ranges
            return self.upload(np.zeros(shape, dtype=dtype))
        memory, device_id = self._options.memory, self._options.device_id
        with self._turn:
            return self._runtime.OrtValue.ortvalue_from_shape_and_type(shape, dtype, memory, device_id)

    def write(self, value: onnxruntime.OrtValue, array: NDArray[Any]) -> None:
        """See `Backend.write`."""
        with self._turn:
            value.update_inplace(np.ascontiguousarray(array))

    def upload(self, array: NDArray[Any]) -> onnxruntime.OrtValue:
        """See `Backend.upload`."""
        with self._turn:
            return self._runtime.OrtValue.ortvalue_from_numpy(array, self._options.memory, self._options.device_id)

    def share(self, array: NDArray[Any]) -> onnxruntime.OrtValue:
        """See `Backend.share`."""
        if self._options.memory != "cpu":
            raise EngineError(
                "this bundle keeps its cache in the host's memory, and device is "
                f"{self._options.device!r}; export it with --target {self._options.device}"
            )
        return self._runtime.OrtValue.ortvalue_from_numpy(array)  # a view of the array on the CPU

    def download(self, value: onnxruntime.OrtValue) -> NDArray[Any]:
        """See `Backend.download`."""
        with self._turn:
            array: NDArray[Any] = value.numpy()
        return array

    def synchronize(self) -> None:
        """See `Backend.synchronize`. Nothing to do: ONNX Runtime waits at the end of each run."""

    def dtype(self, graph: str, name: str) -> np.dtype[Any]:
        """See `Backend.dtype`."""
        return _DTYPES[self._input_types[graph, name]]

    def prepare(self, graph: str, inputs: Values, outputs: Sequence[str], into: Values) -> Prepared:
        """See `Backend.prepare`."""

        def in_turn(call: Callable[[], Result]) -> Result:
            try:
                with NATIVE_CALLS, self._turn:
                    return call()
            except Exception as error:  # ONNX Runtime's errors have no common base class
                if is_out_of_memory(error):
                    raise EngineMemoryError(
                        _no_memory(graph, "fewer clips at once, fewer beams or shorter audio")
                    ) from error
                raise EngineError(f"{graph} failed: {error}") from error

        return partial(in_turn, in_turn(lambda: self._prepare(graph, inputs, outputs, into)))

    def run(self, graph: str, inputs: Values, outputs: Sequence[str]) -> dict[str, onnxruntime.OrtValue]:
        """See `Backend.run`."""
        return self.prepare(graph, inputs, outputs, {})()

    def _prepare(self, graph: str, inputs: Values, outputs: Sequence[str], into: Values) -> Prepared:
        recorded = self._cuda_graphs if graph == DECODER_WITH_PAST else None
        if recorded is not None and into and not outputs:
            return partial(recorded.run, inputs, into)
        session = self._sessions[graph]
        binding = session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name in outputs:
            binding.bind_output(name, self._options.memory, self._options.device_id)
        for name, value in into.items():
            binding.bind_ortvalue_output(name, value)

        def run() -> dict[str, onnxruntime.OrtValue]:
            session.run_with_iobinding(binding)
            # Outputs in `into` come last and are cut off.
            return dict(zip(outputs, binding.get_outputs(), strict=False)) if outputs else {}

        def run_beside_recorded_ones() -> dict[str, onnxruntime.OrtValue]:
            assert recorded is not None  # noqa: S101 - chosen by it
            recorded.run_unrecorded(binding)
            # Memory that the session allocates may be overwritten by the next replay, so results are copied.
            found = zip(outputs, binding.get_outputs(), strict=False)
            return {name: self.upload(self.download(value)) for name, value in found}

        return run if recorded is None else run_beside_recorded_ones

    def _load(self, bundle: Bundle, graph: str) -> onnxruntime.InferenceSession:
        path, version = bundle.path(f"{graph}.onnx"), self._runtime.__version__
        # The only size that is not in the manifest. The encoder is loaded first, and its own profile does not need it.
        width = self._sessions[ENCODER].get_outputs()[0].shape[-1] if self._sessions else 0
        providers = graph_providers(self._options, bundle, graph, width, version)
        alone = self._options.device == "cpu" and graph != ENCODER and _is_small(bundle, graph)
        threads = 1 if alone else self._options.intra_op_threads
        # A step that writes in place always has the same shapes, so its memory is planned once.
        repeats = graph == DECODER_WITH_PAST and bundle.manifest.decoder.cache == "in_place"
        open_graph = partial(self._open, providers, threads, repeats or self._options.memory_pattern)
        if self._options.optimized_model_cache is None:
            session = open_graph(path)
        else:
            entry = cache_entry(bundle, graph, self._options, version, threads)
            session = open_through_cache(entry, path, open_graph, check_hashes=self._check_hashes)
        _check_signature(session, bundle, graph)
        return session

    def _open(
        self,
        providers: list[tuple[str, dict[str, str]]],
        threads: int,
        memory_pattern: bool,
        path: Path,
        *,
        optimized: bool = False,
        save_to: Path | None = None,
    ) -> onnxruntime.InferenceSession:
        """Make a session; see `optimized_graphs.OpenGraph`."""
        asked = [name for name, _ in providers]
        settings = self._settings("disabled" if optimized else self._options.graph_optimization, threads)
        settings.enable_mem_pattern = memory_pattern
        if save_to is not None:
            settings.optimized_model_filepath = str(save_to)
            # Weights go into another file, since protobuf files end at 2 GiB.
            settings.add_session_config_entry(
                "session.optimized_model_external_initializers_file_name", f"{save_to.name}.data"
            )
        try:
            # Without `enable_fallback=0` ONNX Runtime would print the provider's error and continue on the CPU.
            session = self._runtime.InferenceSession(str(path), settings, providers=providers, enable_fallback=0)
        except Exception as error:
            raise_provider_failure(error, asked, self._not_loaded)
            if is_out_of_memory(error):
                raise EngineMemoryError(_no_memory(path.name, "a smaller model, int8 for example")) from error
            raise BundleError(f"{path} cannot be loaded: {error}") from error
        check_providers(session, asked, self._not_loaded)
        return session

    def _settings(self, graph_optimization: str, threads: int) -> onnxruntime.SessionOptions:
        """Return the options in the format of ONNX Runtime."""
        runtime, options = self._runtime, self._options
        settings = runtime.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.inter_op_num_threads = options.inter_op_threads
        if options.inter_op_threads > 1:
            settings.execution_mode = runtime.ExecutionMode.ORT_PARALLEL
        settings.enable_cpu_mem_arena = options.cpu_memory_arena
        settings.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, _LEVELS[graph_optimization])
        if self._exact_bytes:
            settings.add_session_config_entry(_EXACT_BYTES, "1")
        if options.device == "cpu":
            settings.add_session_config_entry(_DISABLE_FUSIONS, SLOW_FUSIONS)
            settings.add_session_config_entry(_REST_BETWEEN_RUNS, "1")
        if self._shares_arena:
            settings.add_session_config_entry(_SHARED_ARENA, "1")
        settings.log_severity_level = _SEVERITIES[options.log_severity]
        return settings


def _no_memory(graph: str, remedy: str) -> str:
    return f"{graph} needs more memory than is left (ulimit -v and a container's limit count); try {remedy}"


def _is_small(bundle: Bundle, graph: str) -> bool:
    files = bundle.manifest.files
    size = sum(facts.size for name, facts in files.items() if name.startswith(f"{graph}.onnx"))
    return size <= _ONE_THREAD_UP_TO


def _check_signature(session: onnxruntime.InferenceSession, bundle: Bundle, graph: str) -> None:
    manifest = bundle.manifest
    decoder = manifest.decoder
    expected = {
        "inputs": set(graph_inputs(graph, manifest.encoder.input_name, decoder.layers, decoder.cache)),
        "outputs": set(graph_outputs(graph, decoder.layers)),
    }
    found = {
        "inputs": {node.name for node in session.get_inputs()},
        "outputs": {node.name for node in session.get_outputs()},
    }
    problems = [
        f"{side} {', '.join(sorted(names))} {what}"
        for side in expected
        for what, names in (
            ("missing", expected[side] - found[side]),
            ("not expected", found[side] - expected[side]),
        )
        if names
    ]
    if problems:
        raise BundleError(f"{graph}.onnx of {bundle.directory} does not fit its manifest: {'; '.join(problems)}")
