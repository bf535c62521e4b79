"""Runs of a TensorRT graph as CUDA graphs: recorded off the stream once for each set of tensors, and replayed."""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..cuda.calls import Device
from ..cuda.device_memory import DeviceTensor


@dataclass(frozen=True)
class _Recording:
    """What the device replays, and the tensors whose addresses are in it: no others get them while it may be."""

    handle: int
    tensors: tuple[DeviceTensor, ...]


class RecordedRuns:
    """Recordings of one graph on one device; nothing else that the device does may be in them."""

    def __init__(self, device: Device) -> None:
        """Begin with none."""
        self._device = device
        self._known: dict[tuple[int, ...], _Recording] = {}
        self._handles: list[int] = []
        weakref.finalize(self, _forget, device, self._handles).atexit = False

    def replay(self, tensors: Sequence[DeviceTensor]) -> bool:
        """Put the run on the stream that was recorded with `tensors`; false where there is none."""
        recording = self._known.get(_key(tensors))
        if recording is None:
            return False
        self._device.replay(recording.handle)
        return True

    def record(self, tensors: Sequence[DeviceTensor], others: Sequence[DeviceTensor], run: Callable[[], None]) -> None:
        """Record what `run` puts on the stream, without doing it, for the next time that `tensors` come.

        Args:
            tensors: inputs, and outputs that somebody reads.
            others: what is written besides.
            run: done once before, as TensorRT wants it after a change of shapes.
        """
        handle = self._device.record(run)
        self._handles.append(handle)
        self._known[_key(tensors)] = _Recording(handle, (*tensors, *others))


def _key(tensors: Sequence[DeviceTensor]) -> tuple[int, ...]:
    return tuple(map(id, tensors))


def _forget(device: Device, handles: list[int]) -> None:
    if handles:
        device.synchronize()
    for handle in handles:
        device.forget(handle)
