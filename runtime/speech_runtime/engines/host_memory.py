"""The host's memory that ONNX Runtime takes: one arena for all graphs of the process, and nothing left from loading."""

import ctypes
from functools import cache
from typing import Any


@cache
def share_arena(runtime: Any) -> None:
    """Register the arena that sessions with `use_env_allocators` take their memory from.

    The graphs of a model run one after the other: what the encoder has freed, the decoder takes. With arenas of their
    own each keeps the most that it ever needed.
    """
    anywhere = runtime.OrtMemoryInfo("Cpu", runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, runtime.OrtMemType.DEFAULT)
    runtime.create_and_register_allocator(anywhere, runtime.OrtArenaCfg({}))


def give_back_freed() -> None:
    """Return to the system what loading has freed; glibc would keep it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
