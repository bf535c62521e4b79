"""ONNX Runtime sessions of the graphs of a bundle, and the memory arena that they share."""

from __future__ import annotations

import logging
import re
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...bundle.graph_io import DECODER_WITH_PAST, ENCODER, graph_inputs, graph_outputs
from ...bundle.loading import Bundle
from ...errors import BundleError, EngineError, EngineMemoryError
from ...paths import expanded
from ...system import MIB, bytes_saturate, free_memory_bytes
from ..cuda.graphs import NOT_RECORDED, NUMBER
from ..engine_messages import in_one_line
from ..options import TENSORRT_RTX, SessionOptions
from .graph_providers import graph_providers
from .optimized_graphs import cache_entry, open_through_cache
from .plugin import plugin_device
from .providers import check_providers, preload_libraries, raise_provider_failure
from .threads import operator_threads

if TYPE_CHECKING:
    import onnxruntime

logger = logging.getLogger(__name__)

_LEVELS = {
    "disabled": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
_EXACT_BYTES = "session.x64quantprecision"
"""Option of a session: multiply unsigned bytes, slower and never saturating. Needs at least level "extended"."""
_PRODUCTS_OF_FLOATS = "session.disable_quant_qdq"
"""Option of a session: do not fuse QuantizeLinear, DequantizeLinear and products into products of bytes. With unsigned
bytes, ONNX Runtime (1.32) makes a DequantizeLinear whose scales and zero points do not fit each other."""
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
INEXACT_FUSIONS = "BiasGeluFusion"
"""Fusions of ONNX Runtime whose CUDA kernels round more than the operators that they replace: in float16, the kernel of
a bias and its GELU forms 1 + erf in float16, where that of Gelu alone computes in float32 (1.30)."""
_ARENA_RESERVE = 16
"""Divisor of the free memory: one 16th is left for memory outside the arena, above all Python's own arrays."""

_OUT_OF_MEMORY = re.compile(
    "Failed to allocate memory|Available memory of|bad_alloc|bad allocation|out of memory", re.I
)
"""Messages of ONNX Runtime about a lack of memory, on a CPU and on a GPU."""


class SessionLoader:
    """Makes the sessions of one bundle."""

    def __init__(self, bundle: Bundle, options: SessionOptions, runtime: Any, *, check_hashes: bool) -> None:
        """Load the libraries of the providers, and register the arena.

        Args:
            bundle: Bundle with the graphs.
            options: Options of the sessions.
            runtime: Module `onnxruntime`.
            check_hashes: If true, compare the SHA-256 of cached optimised graphs.

        Raises:
            EngineError: The level of graph optimisation would give wrong results on this processor; or a plugin is
                missing, or does not support the GPU.
        """
        self._bundle = bundle
        self._options = options
        self._runtime = runtime
        self._check_hashes = check_hashes
        quantization = bundle.manifest.quantization
        inexact = quantization is not None and quantization.multiplies_bytes and bytes_saturate()
        # Graphs for other targets are standard ONNX: they multiply bytes only once ONNX Runtime has fused them.
        self._exact_bytes = inexact and bundle.manifest.target == "cpu"
        self._no_bytes = inexact and not self._exact_bytes
        if self._exact_bytes and options.graph_optimization in ("disabled", "basic"):
            raise EngineError(
                f"graph_optimization {options.graph_optimization!r} would give wrong results: this processor has no "
                "VNNI, and ONNX Runtime computes int8 bundles exactly only from 'extended' on; choose that, or 'all'"
            )
        self._not_loaded = preload_libraries(runtime, options)
        self._plugin = plugin_device(runtime, options.device_id) if options.device == "tensorrt_rtx" else None
        self._threads = operator_threads(options.intra_op_threads)
        self._shares_arena = options.device == "cpu" and options.cpu_memory_arena
        if self._shares_arena:
            share_arena(runtime)

    def load(self, graph: str, width: int) -> onnxruntime.InferenceSession:
        """Make the session of `graph`; `width` is the last dimension of `encoder_hidden_states`.

        Raises:
            EngineError: A provider cannot be set up, or memory is missing.
            BundleError: The graph cannot be loaded, or does not match the manifest.
        """
        bundle, path, version = self._bundle, self._bundle.path(f"{graph}.onnx"), self._runtime.__version__
        providers = graph_providers(self._options, bundle, graph, width, version)
        alone = self._options.device == "cpu" and graph != ENCODER and _is_small(bundle, graph)
        threads = 1 if alone else self._threads
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
        requested = [name for name, _ in providers]
        settings = self._settings("disabled" if optimized else self._options.graph_optimization, threads)
        settings.enable_mem_pattern = memory_pattern
        if save_to is not None:
            settings.optimized_model_filepath = str(save_to)
            # Weights go into another file, since protobuf files end at 2 GiB.
            settings.add_session_config_entry(
                "session.optimized_model_external_initializers_file_name", f"{save_to.name}.data"
            )
        if self._plugin is not None:
            self._use_plugin(settings, dict(providers))
        if self._options.profile is not None:
            settings.enable_profiling = True
            settings.profile_file_prefix = str(_made(self._options.profile) / path.stem)
        try:
            # Without `enable_fallback=0` ONNX Runtime would print the provider's error and continue on the CPU.
            session = self._runtime.InferenceSession(
                str(path), settings, providers=None if self._plugin else providers, enable_fallback=0
            )
        except Exception as error:
            raise_provider_failure(error, requested, self._not_loaded)
            if is_out_of_memory(error):
                raise EngineMemoryError(no_memory(path.name, "a smaller model, int8 for example")) from error
            logger.debug("%s cannot be loaded: %s", path, error)
            raise BundleError(f"{path} cannot be loaded: {in_one_line(str(error))}") from error
        check_providers(session, requested, self._not_loaded)
        session.disable_fallback()  # a run whose provider fails must not be repeated on the CPU either
        return session

    def _use_plugin(self, settings: onnxruntime.SessionOptions, providers: dict[str, dict[str, str]]) -> None:
        """Run graphs on the device of the plugin, which is chosen by itself and not by an option."""
        options = {name: value for name, value in providers[TENSORRT_RTX].items() if name != "device_id"}
        settings.add_provider_for_devices([self._plugin], options)

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
        if self._no_bytes:
            settings.add_session_config_entry(_PRODUCTS_OF_FLOATS, "1")
        on_cpu = options.device == "cpu"
        settings.add_session_config_entry(_DISABLE_FUSIONS, SLOW_FUSIONS if on_cpu else INEXACT_FUSIONS)
        if on_cpu:
            settings.add_session_config_entry(_REST_BETWEEN_RUNS, "1")
        if self._shares_arena:
            settings.add_session_config_entry(_SHARED_ARENA, "1")
        settings.log_severity_level = _SEVERITIES[options.log_severity]
        return settings


def _made(directory: str | Path) -> Path:
    """Make the directory for profiles, because ONNX Runtime would not say that it is missing."""
    made = Path(expanded(directory))
    try:
        made.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EngineError(
            f"profile cannot be written: {directory}: {error.strerror}; choose another directory"
        ) from error
    return made


def run_options(runtime: Any, options: SessionOptions, number: str = NOT_RECORDED) -> Any:
    """Return the options of a run that is recorded under `number`.

    Errors of a run are raised, so ONNX Runtime writes them only if it writes warnings.
    """
    found = runtime.RunOptions()
    found.add_run_config_entry(NUMBER, number)
    severity = _SEVERITIES[options.log_severity]
    found.log_severity_level = _SEVERITIES["fatal"] if severity >= _SEVERITIES["error"] else severity
    return found


@cache
def share_arena(runtime: Any) -> None:
    """Register the arena for sessions with `use_env_allocators`.

    The graphs of a model run one after the other, so that the decoder reuses memory that the encoder has freed. With
    separate arenas each graph would keep its own maximum. The arena is limited to the memory that is free now: a graph
    that needs more fails with an error, and the system does not kill the process.
    """
    anywhere = runtime.OrtMemoryInfo("Cpu", runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, runtime.OrtMemType.DEFAULT)
    free = free_memory_bytes()
    runtime.create_and_register_allocator(anywhere, runtime.OrtArenaCfg({"max_mem": free - free // _ARENA_RESERVE}))


def is_out_of_memory(error: Exception) -> bool:
    """Return true if ONNX Runtime failed for lack of memory; it has no error class for that."""
    return isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)) is not None


def no_memory(graph: str, remedy: str) -> str:
    """Return the message for a graph that lacks memory."""
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
        f"{side} {', '.join(sorted(names))} {problem}"
        for side in expected
        for problem, names in (
            ("missing", expected[side] - found[side]),
            ("not expected", found[side] - expected[side]),
        )
        if names
    ]
    if problems:
        raise BundleError(f"{graph}.onnx of {bundle.directory} does not fit its manifest: {'; '.join(problems)}")
