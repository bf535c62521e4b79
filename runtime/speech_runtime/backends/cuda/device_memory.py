"""Memory of a device, used again once nobody holds it.

A step of the search writes its `present` while it reads the `past` of the step before. Both are buffers of the
profile's largest size, so that the two of them take turns as soon as the search lets go of the older one: nothing is
allocated after the first steps, and no buffer is overwritten that somebody still holds.
"""

import weakref
from collections import deque
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .calls import Device

_LEAST = 512
"""Bytes. Tensors without elements get an address of their own, too: not every release of TensorRT takes none."""


class Buffer:
    """Memory at `address`; it goes back to its pool when nobody refers to this object any more."""

    __slots__ = ("__weakref__", "_pool", "address")

    def __init__(self, address: int, pool: "DevicePool") -> None:
        self.address = address
        self._pool = pool


@dataclass(frozen=True, eq=False)
class DeviceTensor:
    """A tensor at the beginning of a buffer."""

    buffer: Buffer
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        """Bytes."""
        return prod(self.shape) * self.dtype.itemsize


class DevicePool:
    """Buffers of one device, by size.

    All work on them is put on one stream, so that a buffer may be used again at once: what reads it was put there
    before what overwrites it.
    """

    def __init__(self, device: Device) -> None:
        """Begin with no memory."""
        self._device = device
        self._free: dict[int, deque[int]] = {}
        self._addresses: list[int] = []
        self._in_flight: list[NDArray[Any]] = []
        weakref.finalize(self, _release, device, self._addresses, self._in_flight).atexit = False

    def copy_in(self, array: NDArray[Any]) -> DeviceTensor:
        """Put a copy of a contiguous array on the stream, which keeps the array until it is waited for."""
        tensor = DeviceTensor(self.take(array.nbytes), array.shape, array.dtype)
        self.write(tensor, array)
        return tensor

    def write(self, tensor: DeviceTensor, array: NDArray[Any]) -> None:
        """Put a copy of a contiguous array into a tensor of its size on the stream; the array is kept likewise."""
        if array.nbytes:
            self._in_flight.append(array)
            self._device.copy_in(tensor.buffer.address, array)

    def copy_out(self, tensor: DeviceTensor) -> NDArray[Any]:
        """What is in a tensor, once all that was put on the stream before is done."""
        array = np.empty(tensor.shape, dtype=tensor.dtype)
        if array.nbytes:
            self._device.copy_out(array, tensor.buffer.address)
        self._device.synchronize()
        self._in_flight.clear()
        return array

    def take(self, size: int, *, exact: bool = False) -> Buffer:
        """A buffer of `size` bytes at least, whatever is in it.

        Args:
            size: bytes.
            exact: do not round up to a power of two, which keeps the number of different sizes small.

        Raises:
            EngineError: the device has no memory left.
        """
        size = max(size, _LEAST)
        size = size if exact else 1 << (size - 1).bit_length()
        free = self._free.setdefault(size, deque())
        try:
            address = free.pop()  # one call, which no other thread can come in between
        except IndexError:
            address = self._device.allocate(size)
            self._addresses.append(address)
        buffer = Buffer(address, self)
        weakref.finalize(buffer, free.append, address).atexit = False
        return buffer


def _release(device: Device, addresses: list[int], in_flight: list[NDArray[Any]]) -> None:
    if addresses:
        device.synchronize()
    in_flight.clear()
    for address in addresses:
        device.free(address)
