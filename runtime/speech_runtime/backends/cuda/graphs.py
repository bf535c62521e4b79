"""Steps of the search as CUDA graphs of ONNX Runtime: recorded once for each set of tensors, then replayed.

ONNX Runtime records a run under a number, and replays it with the addresses and shapes of the recorded run without
comparing them. Here each number belongs to a set of tensors, which are kept as long as it may be replayed. ONNX Runtime
has no call that frees a recording.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...bundle.loading import Bundle
from ...errors import EngineError

if TYPE_CHECKING:
    import onnxruntime

ENABLED = {"enable_cuda_graph": "1"}
"""Option of the CUDA execution provider, for the session whose runs are recorded."""

NUMBER = "gpu_graph_id"
"""Option of a run: number of the recording."""

NOT_RECORDED = "-1"
_FIRST = 1
"""First number to use; 0 is reserved by ONNX Runtime."""
_SMALLEST_BUCKET = 16


def check_recordable(bundle: Bundle, cuda_graphs: int) -> None:
    """Check that steps of `bundle` can be recorded, if `cuda_graphs` is not 0.

    Raises:
        EngineError: Shapes change from step to step.
    """
    if cuda_graphs and bundle.manifest.decoder.cache != "static":
        raise EngineError(
            f"cuda_graphs is {cuda_graphs}, and the cache of {bundle.directory} grows from step to step, which CUDA "
            "graphs cannot record; export the model again with --static-cache TOKENS, or leave it out"
        )


def frame_bucket(frames: int) -> int:
    """Return the number of encoder frames to pad to, so that few sizes are recorded.

    It is the smallest of 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, … that is at least `frames`: four per octave.
    """
    step = max(_SMALLEST_BUCKET, 1 << max(frames - 1, 1).bit_length() - 1) // 4
    return max(_SMALLEST_BUCKET, -(-frames // step) * step)


@dataclass(frozen=True)
class _Recording:
    """Everything that replaying a run needs.

    Attributes:
        binding: Binding of all tensors.
        options: Options of the run, with its number.
        tensors: Tensors of the run; while they are kept, no others get their addresses.
    """

    binding: Any
    options: Any
    tensors: tuple[onnxruntime.OrtValue, ...]


class CudaGraphs:
    """Runs of one session. Only one thread may call it at a time, and no other thread may call CUDA meanwhile.

    ONNX Runtime keeps recordings for each thread, under the same numbers.
    """

    def __init__(self, session: onnxruntime.InferenceSession, options: Callable[[str], Any]) -> None:
        """Begin without recordings.

        Args:
            session: Session of the step; it must have the option `ENABLED`.
            options: Function that returns the options of a run with a number.
        """
        self._session = session
        self._options = options
        self._recordings: dict[tuple[int, ...], _Recording] = {}
        self._not_recorded = options(NOT_RECORDED)

    def run(
        self, inputs: Mapping[str, onnxruntime.OrtValue], into: Mapping[str, onnxruntime.OrtValue]
    ) -> dict[str, onnxruntime.OrtValue]:
        """Run with `inputs`, and write all outputs to the tensors of `into`. Known tensors replay their recording.

        Returns:
            An empty dictionary, since no outputs remain.
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
        """Run a binding once, without recording it."""
        self._session.run_with_iobinding(binding, self._not_recorded)
