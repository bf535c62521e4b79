"""The machine that this process runs on: its processor, its memory, and the versions of the libraries."""

import ctypes
import os
import platform
import re
import sys
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .control_groups import ROOT, cpu_quotas, memory_limits, read

MIB = 2**20

_CPUINFO = Path("/proc/cpuinfo")
_BYTE_PRODUCTS = frozenset({"amx_int8", "avx512_vnni", "avx_vnni"})
"""Instruction sets that add products of bytes in 32 bits."""
_SPEED_FEATURES = (
    *("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_int8", "amx_bf16"),
)
"""Instruction sets that decide how fast a processor multiplies, as Linux names them."""
_PACKAGES = ("speech-export", "onnxruntime", "onnxruntime-gpu", "numpy")
_GPU_PACKAGES = ("tensorrt", "tensorrt-rtx-cu13")


def peak_rss_bytes() -> int:
    """Return the largest physical memory that this process has ever occupied, in bytes.

    On Linux it is read from `/proc`: the number of `getrusage` starts at the memory of the parent process, so that a
    small child of a large process would look large.
    """
    peak = _status_bytes("VmHWM")
    if peak is not None:
        return peak
    import resource  # not on Windows

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def free_memory_bytes() -> int:
    """Return how many bytes this process may still allocate.

    The smallest of three limits counts: the machine's memory, that of the process's control group (a container's limit,
    version 1 or 2), and the address space (`ulimit -v`). Memory of other processes is not subtracted.
    """
    import resource  # not on Windows

    resident = _status_bytes("VmRSS")
    free = memory_limit_bytes() - (peak_rss_bytes() if resident is None else resident)
    addresses, _ = resource.getrlimit(resource.RLIMIT_AS)
    if addresses != resource.RLIM_INFINITY:
        free = min(free, addresses - (_status_bytes("VmSize") or 0))
    return max(free, 0)


@cache
def memory_limit_bytes(root: Path = ROOT) -> int:
    """Return the bytes of the machine's memory, or of this process's control group if that has fewer.

    Args:
        root: Directory that contains the file systems `proc` and `sys`.
    """
    return min([_physical_memory(), *memory_limits(root)])


def usable_cpus(root: Path = ROOT) -> int:
    """Return how many processors this process may keep busy, at least 1.

    Its affinity counts, and the quotas of its control groups, rounded down: threads in excess of a quota are stopped
    until the next period.

    Args:
        root: Directory that contains the file systems `proc` and `sys`.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # Linux
    present = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, int(min([present, *cpu_quotas(root)])))


def available_memory() -> int | None:
    """Return the bytes that a new process may allocate without swapping; None if the system does not tell."""
    found = re.search(r"^MemAvailable:\s*(\d+) kB$", read(Path("/proc/meminfo")), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def return_freed_memory() -> None:
    """Return freed memory to the system; glibc would keep what was freed while the graphs were loaded."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def instruction_sets() -> frozenset[str]:
    """Return the instruction sets of this processor, as Linux names them; empty on other systems."""
    flags = re.search(r"^flags\s*:\s*(.+)$", read(_CPUINFO), re.MULTILINE)
    return frozenset(flags[1].split()) if flags else frozenset()


@cache
def bytes_saturate() -> bool:
    """Return true if sums of products of unsigned and signed bytes may overflow on this processor.

    x86 processors before VNNI add pairs of products in 16 bits and clip the sum: results of int8 graphs are then wrong,
    slightly or by much. If the instruction sets are unknown, the answer is true.
    """
    return platform.machine().lower() in ("x86_64", "amd64") and not _BYTE_PRODUCTS & instruction_sets()


@dataclass(frozen=True)
class Machine:
    """A machine and the versions of the libraries on it.

    Attributes:
        processor: Name of the processor.
        cores: Number of cores that this process may use, within its affinity and the quota of its container.
        features: Instruction sets that decide how fast the processor multiplies.
        memory: Physical memory in bytes.
        system: Name and release of the operating system.
        versions: Versions of packages, by name.
        gpu: Name of the GPU; None if nothing runs on it.
        present: Number of cores of the machine, if this process may not use all of them.
    """

    processor: str
    cores: int
    features: tuple[str, ...]
    memory: int
    system: str
    versions: dict[str, str]
    gpu: str | None = None
    present: int | None = None

    @classmethod
    def here(cls, packages: tuple[str, ...] = _PACKAGES, gpu: str | None = None) -> "Machine":
        """Describe this machine, with the versions of those `packages` that are installed."""
        cores, present = usable_cpus(), os.cpu_count()
        name, known = re.search(r"^model name\s*:\s*(.+)$", read(_CPUINFO), re.MULTILINE), instruction_sets()
        return cls(
            processor=name[1] if name else platform.processor() or platform.machine(),
            cores=cores,
            features=tuple(feature for feature in _SPEED_FEATURES if feature in known),
            memory=_physical_memory(),
            system=f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
            versions=_versions(packages if gpu is None else (*packages, *_GPU_PACKAGES)),
            gpu=gpu,
            present=present if present is not None and present > cores else None,
        )

    def describe(self) -> str:
        """Return one line for people."""
        features = ", ".join(self.features) or "features unknown"
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        cores = f"{self.cores} cores" if self.present is None else f"{self.cores} of {self.present} cores"
        gpu = "" if self.gpu is None else f"{self.gpu}; "
        return f"{gpu}{self.processor}, {cores} ({features}), {self.memory / 2**30:.0f} GiB; {versions}"


def _physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _status_bytes(name: str) -> int | None:
    """Return a size from Linux's status of this process, in bytes; None on other systems."""
    found = re.search(rf"^{name}:\s*(\d+) kB$", read(Path("/proc/self/status")), re.MULTILINE)
    return int(found[1]) * 1024 if found else None
