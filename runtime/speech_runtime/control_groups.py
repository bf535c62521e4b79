"""Limits that Linux's control groups set for this process: the memory and the processors of a container.

Files and their formats: https://docs.kernel.org/admin-guide/cgroup-v2.html (`memory.max`, `cpu.max`), and for version 1
https://docs.kernel.org/scheduler/sched-bwc.html (`cpu.cfs_quota_us`, `cpu.cfs_period_us`).
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/")
"""Directory that contains the file systems `proc` and `sys`."""


def memory_limits(root: Path = ROOT) -> Iterator[int]:
    """Yield the limits in bytes of this process's control groups and of the groups around them."""
    for group in _groups("memory", root):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = read(group / name).strip()
            if limit.isdigit():  # "max" stands for no limit
                yield int(limit)


def cpu_quotas(root: Path = ROOT) -> Iterator[float]:
    """Yield how many processors these groups may keep busy, such as 1.5 for `docker run --cpus=1.5`."""
    for group in _groups("cpu", root):
        both = read(group / "cpu.max").split()
        both = both or [read(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
        if len(both) == 2 and all(number.isdigit() for number in both) and int(both[1]):  # "max" and -1: no limit
            yield int(both[0]) / int(both[1])


def read(path: Path) -> str:
    """Read a file of the system; return an empty string if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """Yield the directories of this process's groups that have a controller, each followed by those around it."""
    for line in read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        inside = PurePosixPath(path.lstrip("/"))
        # A container may see the path of its host, while its own group is at the root.
        for group in (inside, *inside.parents):
            yield root / "sys/fs/cgroup" / controllers / group
