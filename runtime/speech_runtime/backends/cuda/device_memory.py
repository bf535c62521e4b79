"""Device memory that is reused once nobody refers to it.

A step of the search writes `present` while it reads the `past` of the step before. Both are buffers of the profile's
largest size, so that two buffers alternate as soon as the search drops the older one: nothing is allocated after the
first steps, and a buffer is never overwritten while it is in use.
"""

import weakref
from collections import deque
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .calls import Device
from .captures import CUDA_CALLS

_LEAST = 512
"""Smallest buffer, bytes. Empty tensors need an address too: some releases of TensorRT refuse a null address."""


class Buffer:
    """Memory at `address`; it returns to its pool when this object is garbage-collected."""

    __slots__ = ("__weakref__", "_pool", "address")

    def __init__(self, address: int, pool: "DevicePool") -> None:
        self.address = address
        self._pool = pool


@dataclass(frozen=True, eq=False)
class DeviceTensor:
    """A tensor at the start of a buffer."""

    buffer: Buffer
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        """Size in bytes."""
        return prod(self.shape) * self.dtype.itemsize


class DevicePool:
    """Buffers of one device, by size.

    All work on them is put on one stream, so that a free buffer may be reused at once: work that reads it precedes work
    that overwrites it.
    """

    def __init__(self, device: Device) -> None:
        """Begin without buffers."""
        self._device = device
        self._free: dict[int, deque[int]] = {}
        self._addresses: list[int] = []
        self._in_flight: list[NDArray[Any]] = []
        release = partial(_release, device, self._addresses, self._in_flight)
        weakref.finalize(self, CUDA_CALLS.release, release).atexit = False

    def copy_in(self, array: NDArray[Any]) -> DeviceTensor:
        """Copy a contiguous array to a new tensor, on the stream; the array is kept until `synchronize`."""
        tensor = DeviceTensor(self.take(array.nbytes), array.shape, array.dtype)
        self.write(tensor, array)
        return tensor

    def write(self, tensor: DeviceTensor, array: NDArray[Any]) -> None:
        """Copy a contiguous array into a tensor of its size, on the stream; the array is kept as in `copy_in`."""
        if array.nbytes:
            self._in_flight.append(array)
            self._device.copy_in(tensor.buffer.address, array)

    def copy_out(self, tensor: DeviceTensor) -> NDArray[Any]:
        """Copy a tensor to the host, after everything that is on the stream."""
        array = np.empty(tensor.shape, dtype=tensor.dtype)
        if array.nbytes:
            self._device.copy_out(array, tensor.buffer.address)
        self._device.synchronize()
        self._in_flight.clear()
        return array

    def take(self, size: int, *, exact: bool = False) -> Buffer:
        """Return a buffer of at least `size` bytes; its content is undefined.

        Args:
            size: Size in bytes.
            exact: If false, round up to a power of two, which keeps the number of different sizes small.

        Raises:
            EngineError: The device has no memory left.
        """
        size = max(size, _LEAST)
        size = size if exact else 1 << (size - 1).bit_length()
        free = self._free.setdefault(size, deque())
        try:
            address = free.pop()  # atomic: no other thread can take the same buffer
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
