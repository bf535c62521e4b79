"""Host memory of ONNX Runtime: one arena for all graphs of the process, with a limit."""

import re
from functools import cache
from typing import Any

from ...system import free_memory_bytes

_REST = 16
"""Divisor of the free memory: one 16th is left for memory outside the arena, above all Python's own arrays."""

_OUT_OF_MEMORY = re.compile(
    "Failed to allocate memory|Available memory of|bad_alloc|bad allocation|out of memory", re.I
)
"""Messages of ONNX Runtime about a lack of memory, on a CPU and on a GPU."""


@cache
def share_arena(runtime: Any) -> None:
    """Register the arena for sessions with `use_env_allocators`.

    The graphs of a model run one after the other, so that the decoder reuses memory that the encoder has freed. With
    separate arenas each graph would keep its own maximum. The arena is limited to the memory that is free now: a graph
    that needs more fails with an error, and the system does not kill the process.
    """
    anywhere = runtime.OrtMemoryInfo("Cpu", runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, runtime.OrtMemType.DEFAULT)
    free = free_memory_bytes()
    runtime.create_and_register_allocator(anywhere, runtime.OrtArenaCfg({"max_mem": free - free // _REST}))


def is_out_of_memory(error: Exception) -> bool:
    """Return true if ONNX Runtime failed for lack of memory; it has no error class for that."""
    return isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)) is not None
