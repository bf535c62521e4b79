"""Execution providers of each graph, with the options that depend on the graph: profiles of shapes, and caches."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from ...bundle.graph_io import DECODER_WITH_PAST
from ...bundle.loading import Bundle
from ...paths import expanded
from ..cache_directory import cache_name
from ..cuda.graphs import ENABLED
from ..cuda.recorded_sizes import recorded_sizes
from ..options import CUDA, TENSORRT, TENSORRT_RTX, SessionOptions, TensorRtOptions
from ..tensorrt.profiles import graph_profiles, input_shapes, shape_ranges, widest

Settings = dict[str, str]

_PREFIXES = {TENSORRT: "trt", TENSORRT_RTX: "nv"}


def graph_providers(
    options: SessionOptions, bundle: Bundle, graph: str, width: int, runtime_version: str
) -> list[tuple[str, Settings]]:
    """Return the argument `providers` of `InferenceSession` for `graph`.

    If `options.providers` is set, it is used as it is.

    Args:
        options: Device and options of the providers.
        bundle: Bundle whose manifest determines the profiles.
        graph: Name of the graph.
        width: Last dimension of `encoder_hidden_states`.
        runtime_version: Version of ONNX Runtime; each has its own cache.

    Raises:
        EngineError: All sizes within the limits are too small for the model, or CUDA graphs are requested for steps
            whose shapes change.
    """
    providers = options.execution_providers
    if options.providers:
        return providers
    if sizes_to_record(options, bundle) and graph == DECODER_WITH_PAST:
        return [(name, settings | ENABLED if name == CUDA else settings) for name, settings in providers]
    if graph == DECODER_WITH_PAST and not options.tensorrt.zero_past:
        return [(name, settings) for name, settings in providers if name != TENSORRT]
    return [
        (name, settings | _of_graph(name, options.tensorrt, bundle, graph, width, runtime_version))
        if name in _PREFIXES
        else (name, settings)
        for name, settings in providers
    ]


def sizes_to_record(options: SessionOptions, bundle: Bundle) -> int:
    """Return the number of step sizes that ONNX Runtime records as CUDA graphs.

    Raises:
        EngineError: A number is requested, and shapes change from step to step.
    """
    is_ours = options.device == "cuda" and not options.providers
    return recorded_sizes(bundle, options.cuda.cuda_graphs) if is_ours else 0


def engine_cache(options: TensorRtOptions, bundle: Bundle, runtime_version: str) -> Path | None:
    """Return the directory for the engines of `bundle`; another model or other limits have another directory."""
    if options.engine_cache is None:
        return None
    known = {
        "graphs": bundle.manifest.graph_hashes,
        "precision": bundle.manifest.precision,
        "limits": asdict(options.limits),
        "onnxruntime": runtime_version,
    }
    return Path(expanded(options.engine_cache)) / cache_name(known)


def _of_graph(
    name: str, options: TensorRtOptions, bundle: Bundle, graph: str, width: int, runtime_version: str
) -> Settings:
    settings = _profile_shapes(_PREFIXES[name], options, bundle, graph, width)
    cache = engine_cache(options, bundle, runtime_version)
    if name == TENSORRT_RTX:
        return settings if cache is None else settings | {"nv_runtime_cache_path": str(cache)}
    # `trt_fp16_enable` is never set, not even for half precision: without it the network is strongly typed like the
    # graph; with it TensorRT may compute in half precision what the graph keeps in float32.
    settings["trt_context_memory_sharing_enable"] = "1" if options.shared_memory else "0"
    if cache is not None:
        settings |= {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(cache),
            "trt_engine_cache_prefix": graph,
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(cache),
        }
    return settings


def _profile_shapes(prefix: str, options: TensorRtOptions, bundle: Bundle, graph: str, width: int) -> Settings:
    """Return the shapes of every input; the providers accept all of them or none."""
    manifest = bundle.manifest
    profile = widest(graph_profiles(bundle, options.limits)[graph])
    shapes = {
        name: shape_ranges(shape, profile)
        for name, shape in input_shapes(graph, manifest.encoder, manifest.decoder, width).items()
    }
    ends = {"min": 0, "opt": 1, "max": 2}
    return {
        f"{prefix}_profile_{end}_shapes": _written({name: ranges[i] for name, ranges in shapes.items()})
        for end, i in ends.items()
    }


def _written(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())
