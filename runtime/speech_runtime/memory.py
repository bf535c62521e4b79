"""How much memory this process has taken."""

import re
import sys
from pathlib import Path

_HIGH_WATER = re.compile(r"^VmHWM:\s*(\d+) kB$", re.MULTILINE)


def peak_rss_bytes() -> int:
    """The most physical memory that this process has occupied at any time, bytes.

    On Linux it is read from `/proc`: what `getrusage` says there begins with the memory of the process that started
    this one, and a small one started by a large one would look as large.
    """
    try:
        found = _HIGH_WATER.search(Path("/proc/self/status").read_text(encoding="ascii", errors="replace"))
    except OSError:
        found = None
    if found:
        return int(found[1]) * 1024
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
