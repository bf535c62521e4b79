"""What this processor is able to do: whether it multiplies bytes exactly."""

import platform
from functools import cache
from pathlib import Path

_DOT_PRODUCTS = frozenset({"amx_int8", "avx512_vnni", "avx_vnni"})
_CPUINFO = Path("/proc/cpuinfo")


@cache
def bytes_saturate() -> bool:
    """Whether sums of products of unsigned and signed bytes may overflow unnoticed.

    x86 processors before VNNI add pairs of them in 16 bits, and cut off what does not fit: the results of int8 graphs
    are then wrong by a little, or by much. Where it cannot be found out, yes.
    """
    return platform.machine().lower() in ("x86_64", "amd64") and not _DOT_PRODUCTS & instructions()


def instructions() -> frozenset[str]:
    """Instruction sets of this processor, as Linux names them; none elsewhere."""
    return _flags(_CPUINFO)


def _flags(cpuinfo: Path) -> frozenset[str]:
    """Instruction sets that Linux knows of; none elsewhere."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line for line in lines if line.startswith("flags")), "").partition(":")[2].split())
