"""ONNX Runtime: one I/O-binding loop for every execution provider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ..bundle import Bundle
from ..contract import GRAPHS, graph_inputs, graph_outputs
from ..errors import BundleError, EngineError

if TYPE_CHECKING:
    import onnxruntime

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_INSTALL = {"cpu": "pip install 'speech-export[cpu]'", "cuda": "pip install 'speech-export[cuda]'"}


@dataclass(frozen=True)
class SessionOptions:
    """How ONNX Runtime runs the graphs.

    `intra_op_threads` is the number of threads of one operator; 0 leaves the choice to ONNX Runtime (all cores).
    """

    device: str = "cpu"
    device_id: int = 0
    intra_op_threads: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.device not in _PROVIDERS:
            raise EngineError(f"unknown device {self.device!r}; known are {', '.join(_PROVIDERS)}")
        if self.intra_op_threads < 0:
            raise EngineError(f"intra_op_threads is {self.intra_op_threads}; give 0 (all cores) or more")


class OnnxRuntimeEngine:
    """The graphs of a bundle as ONNX Runtime sessions. See `engine.Engine`."""

    def __init__(self, bundle: Bundle, options: SessionOptions) -> None:
        """Load all three graphs.

        Raises:
            EngineError: ONNX Runtime or the provider is missing.
            BundleError: a graph is not what the manifest says.
        """
        self._runtime = _import_onnxruntime(options)
        self._options = options
        self._sessions = {graph: self._load(bundle, graph) for graph in GRAPHS}

    def upload(self, array: NDArray[Any]) -> onnxruntime.OrtValue:
        """Copy an array to the device."""
        return self._runtime.OrtValue.ortvalue_from_numpy(array, self._options.device, self._options.device_id)

    def download(self, value: onnxruntime.OrtValue) -> NDArray[Any]:
        """Copy a tensor to the host."""
        array: NDArray[Any] = value.numpy()
        return array

    def run(
        self, graph: str, inputs: Mapping[str, onnxruntime.OrtValue], outputs: Sequence[str]
    ) -> dict[str, onnxruntime.OrtValue]:
        """Run `graph` on bound inputs and return the named `outputs`, on the device."""
        session = self._sessions[graph]
        binding = session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name in outputs:
            binding.bind_output(name, self._options.device, self._options.device_id)
        try:
            session.run_with_iobinding(binding)
        except Exception as error:  # ONNX Runtime's errors have no base of their own
            raise EngineError(f"{graph} failed: {error}") from error
        return dict(zip(outputs, binding.get_outputs(), strict=True))

    def _load(self, bundle: Bundle, graph: str) -> onnxruntime.InferenceSession:
        path = bundle.path(f"{graph}.onnx")
        settings = self._runtime.SessionOptions()
        settings.intra_op_num_threads = self._options.intra_op_threads
        settings.log_severity_level = 3
        provider = _PROVIDERS[self._options.device]
        device = {} if self._options.device == "cpu" else {"device_id": str(self._options.device_id)}
        try:
            session = self._runtime.InferenceSession(str(path), settings, providers=[(provider, device)])
        except Exception as error:
            raise BundleError(f"{path} cannot be loaded: {error}") from error
        if session.get_providers()[0] != provider:
            raise EngineError(f"ONNX Runtime fell back from {provider}; its libraries did not load. {_INSTALL['cuda']}")
        _check_signature(session, bundle, graph)
        return session


def _import_onnxruntime(options: SessionOptions) -> Any:
    install = _INSTALL[options.device]
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(f"ONNX Runtime is not installed: {install}") from error
    available = onnxruntime.get_available_providers()
    if _PROVIDERS[options.device] not in available:
        raise EngineError(
            f"device {options.device!r} needs the {_PROVIDERS[options.device]}, and this ONNX Runtime has only "
            f"{', '.join(available)}: {install}"
        )
    return onnxruntime


def _check_signature(session: onnxruntime.InferenceSession, bundle: Bundle, graph: str) -> None:
    manifest = bundle.manifest
    expected = {
        "inputs": set(graph_inputs(graph, manifest.encoder.input_name, manifest.decoder.layers)),
        "outputs": set(graph_outputs(graph, manifest.decoder.layers)),
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
