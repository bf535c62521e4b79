"""The host's memory that ONNX Runtime takes: one arena for all graphs of the process, and nothing left from loading."""

import ctypes
import re
from functools import cache
from typing import Any

from ...system import free_memory_bytes

_REST = 16
"""One part in so many of the free memory is left for what is not in the arena, Python's own arrays above all."""

_OUT_OF_MEMORY = re.compile(
    "Failed to allocate memory|Available memory of|bad_alloc|bad allocation|out of memory", re.I
)
"""What ONNX Runtime says, on a CPU and on a GPU."""


@cache
def share_arena(runtime: Any) -> None:
    """Register the arena that sessions with `use_env_allocators` take their memory from.

    The graphs of a model run one after the other: what the encoder has freed, the decoder takes. With arenas of their
    own each keeps the most that it ever needed. It does not grow beyond the memory that is free now: a graph that needs
    more is refused, where the system would end the process.
    """
    anywhere = runtime.OrtMemoryInfo("Cpu", runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, runtime.OrtMemType.DEFAULT)
    free = free_memory_bytes()
    runtime.create_and_register_allocator(anywhere, runtime.OrtArenaCfg({"max_mem": free - free // _REST}))


def is_out_of_memory(error: Exception) -> bool:
    """Return whether ONNX Runtime failed for lack of memory; it has no error of its own for that."""
    return isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)) is not None


def give_back_freed() -> None:
    """Return to the system what loading has freed; glibc would keep it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
