"""Steps of the search as CUDA graphs: recorded once for each set of tensors, and replayed.

ONNX Runtime records a run by the number that it is given, and replays it with whatever addresses and shapes it had: it
compares none. Here a number belongs to tensors, and those are kept for as long as it may be replayed. There is no call
that forgets a recording.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...bundle.loading import Bundle
from ...errors import EngineError

if TYPE_CHECKING:
    import onnxruntime

ENABLED = {"enable_cuda_graph": "1"}
"""Of the CUDA execution provider, for the session whose runs are to be recorded."""

_NUMBER = "gpu_graph_id"
"""Of ONNX Runtime's options of a run: which recording it is."""

_NOT_RECORDED = "-1"
_FIRST = 1
"""0 is ONNX Runtime's own."""


def check_recordable(bundle: Bundle, cuda_graphs: int) -> None:
    """Check that steps of `bundle` can be recorded, if any are to be.

    Raises:
        EngineError: their shapes change.
    """
    if cuda_graphs and bundle.manifest.decoder.cache != "static":
        raise EngineError(
            f"cuda_graphs is {cuda_graphs}, and the cache of {bundle.directory} grows from step to step, which CUDA "
            "graphs cannot record; export the model again with --static-cache TOKENS, or leave it out"
        )


@dataclass(frozen=True)
class _Recording:
    """What it takes to replay a run.

    Attributes:
        binding: of all tensors.
        options: with the number.
        tensors: as long as they are there, no others get their addresses.
    """

    binding: Any
    options: Any
    tensors: tuple[onnxruntime.OrtValue, ...]


class CudaGraphs:
    """Runs of one session. Not to be called by two threads at a time, nor while another one calls CUDA.

    Each thread that runs it records for itself, under the same numbers.
    """

    def __init__(self, runtime: Any, session: onnxruntime.InferenceSession) -> None:
        """Begin with no recordings of `session`, which was made with the option `ENABLED`."""
        self._runtime = runtime
        self._session = session
        self._recordings: dict[tuple[int, ...], _Recording] = {}
        self._not_recorded = self._options(_NOT_RECORDED)

    def run(
        self, inputs: Mapping[str, onnxruntime.OrtValue], into: Mapping[str, onnxruntime.OrtValue]
    ) -> dict[str, onnxruntime.OrtValue]:
        """Run with `inputs`, all outputs `into` tensors of their own; the same tensors as before make a replay.

        Returns:
            Nothing: there is no other output.
        """
        tensors = (*inputs.values(), *into.values())
        key = tuple(map(id, tensors))
        recording = self._recordings.get(key)
        if recording is None:
            binding = self._session.io_binding()
            for name, value in inputs.items():
                binding.bind_ortvalue_input(name, value)
            for name, value in into.items():
                binding.bind_ortvalue_output(name, value)
            number = str(_FIRST + len(self._recordings))
            recording = self._recordings[key] = _Recording(binding, self._options(number), tensors)
        self._session.run_with_iobinding(recording.binding, recording.options)
        return {}

    def run_unrecorded(self, binding: Any) -> None:
        """Run with a binding that is of this one run."""
        self._session.run_with_iobinding(binding, self._not_recorded)

    def _options(self, number: str) -> Any:
        options = self._runtime.RunOptions()
        options.add_run_config_entry(_NUMBER, number)
        return options
