"""How much memory this process has taken, and how much more it may take."""

import os
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath

_CGROUP_LIMITS = ("memory.max", "memory.limit_in_bytes")
"""Of version 2 and of version 1."""


def peak_rss_bytes() -> int:
    """The most physical memory that this process has occupied at any time, bytes.

    On Linux it is read from `/proc`: what `getrusage` says there begins with the memory of the process that started
    this one, and a small one started by a large one would look as large.
    """
    peak = _status_bytes("VmHWM")
    if peak is not None:
        return peak
    import resource  # not on Windows

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def free_memory_bytes() -> int:
    """Return how many bytes this process may take besides those that it has.

    The least of three counts: the machine's memory, that of its control group (a container's limit, version 1 or 2),
    and its address space (`ulimit -v`). What other processes take of the first two is not counted.
    """
    import resource  # not on Windows

    resident = _status_bytes("VmRSS")
    free = memory_limit_bytes() - (peak_rss_bytes() if resident is None else resident)
    addresses, _ = resource.getrlimit(resource.RLIMIT_AS)
    if addresses != resource.RLIM_INFINITY:
        free = min(free, addresses - (_status_bytes("VmSize") or 0))
    return max(free, 0)


@cache
def memory_limit_bytes(root: Path = Path("/")) -> int:
    """Return the bytes of the machine's memory, or of the control group of this process where that has fewer.

    Args:
        root: of the file systems `proc` and `sys`.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_cgroup_limits(root)])


def _cgroup_limits(root: Path) -> Iterator[int]:
    """Yield the limits of this process's control groups and of those around them."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        mount = root / "sys/fs/cgroup" / controllers
        inside = PurePosixPath(path.lstrip("/"))
        # A container may see the path of its host, and itself at the root.
        for group in (inside, *inside.parents):
            for name in _CGROUP_LIMITS:
                limit = _read(mount / group / name).strip()
                if limit.isdigit():  # it is "max" where there is none
                    yield int(limit)


def _status_bytes(name: str) -> int | None:
    """Return a size that Linux states of this process, in bytes; None on other systems."""
    found = re.search(rf"^{name}:\s*(\d+) kB$", _read(Path("/proc/self/status")), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _read(path: Path) -> str:
    """Return what is in a file of the system, or nothing where it cannot be read."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
