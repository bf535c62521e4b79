"""Steps of the search as CUDA graphs of ONNX Runtime: recorded once for each set of tensors, then replayed.

ONNX Runtime records a run under a number, and replays it with the addresses and shapes of the recorded run without
comparing them. Here each number belongs to a set of tensors, which are kept as long as it may be replayed. ONNX Runtime
has no call that frees a recording.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ..engine_messages import in_one_line
from .captures import CUDA_CALLS

if TYPE_CHECKING:
    import onnxruntime

logger = logging.getLogger(__name__)

ENABLED = {"enable_cuda_graph": "1"}
"""Option of the CUDA execution provider, for the session whose runs are recorded."""

NUMBER = "gpu_graph_id"
"""Option of a run: number of the recording."""

NOT_RECORDED = "-1"
_FIRST = 1
"""First number to use; 0 is reserved by ONNX Runtime."""

_PAUSE_SECONDS = 5.0
"""Seconds without a further attempt after one for which the other threads did not pause: one may load a model."""


@dataclass
class _Step:
    """A run that may be recorded.

    Attributes:
        binding: Binding of all tensors.
        tensors: Tensors of the run; while they are kept, no others get their addresses.
        options: Options of the run with the number of its recording; None while it is not recorded.
    """

    binding: Any
    tensors: tuple[onnxruntime.OrtValue, ...]
    options: Any = None


class CudaGraphs:
    """Runs of one session. All must be made on one thread, since ONNX Runtime keeps recordings for each thread."""

    def __init__(self, session: onnxruntime.InferenceSession, options: Callable[[str], Any]) -> None:
        """Begin without recordings.

        Args:
            session: Session of the step; it must have the option `ENABLED`.
            options: Function that returns the options of a run with a number.
        """
        self._session = session
        self._options = options
        self._known: dict[tuple[int, ...], _Step] = {}
        self._next = _FIRST
        self._not_before = 0.0
        self._not_recorded = options(NOT_RECORDED)

    def prepare(
        self, inputs: Mapping[str, onnxruntime.OrtValue], into: Mapping[str, onnxruntime.OrtValue]
    ) -> Callable[[], dict[str, onnxruntime.OrtValue]]:
        """Return a run with `inputs` that writes all outputs to the tensors of `into`, and returns none.

        The first run with these tensors is recorded, while no other thread uses a GPU, and replayed from then on. If
        the other threads do not pause, or recording fails, it runs without.
        """
        tensors = (*inputs.values(), *into.values())
        key = tuple(map(id, tensors))
        if key not in self._known:
            binding = self._session.io_binding()
            for name, value in inputs.items():
                binding.bind_ortvalue_input(name, value)
            for name, value in into.items():
                binding.bind_ortvalue_output(name, value)
            self._known[key] = _Step(binding, tensors)
        return partial(self._run, self._known[key])

    def run_unrecorded(self, binding: Any) -> None:
        """Run a binding once, without recording it."""
        with CUDA_CALLS:
            self._session.run_with_iobinding(binding, self._not_recorded)

    def close(self) -> None:
        """Give up the session and its recordings."""
        self._known.clear()
        del self._session

    def _run(self, step: _Step) -> dict[str, onnxruntime.OrtValue]:
        if step.options is not None:
            with CUDA_CALLS:
                self._session.run_with_iobinding(step.binding, step.options)
        elif time.monotonic() < self._not_before or not self._record(step):
            self.run_unrecorded(step.binding)
        return {}

    def _record(self, step: _Step) -> bool:
        """Run a step and record it; return false if nothing has run.

        Raises:
            Exception: The step fails without recording, too.
        """
        options, self._next = self._options(str(self._next)), self._next + 1
        try:
            recorded = CUDA_CALLS.alone(partial(self._session.run_with_iobinding, step.binding, options))
        except Exception as error:  # ONNX Runtime's errors have no common base class
            self.run_unrecorded(step.binding)  # raises if it is not the recording that fails
            logger.warning(
                "A step runs without a CUDA graph, since recording it failed; does another library use the GPU? %s",
                in_one_line(str(error)),
            )
            recorded, options = True, self._not_recorded
        if recorded:
            step.options = options
        else:
            self._not_before = time.monotonic() + _PAUSE_SECONDS
        return recorded
