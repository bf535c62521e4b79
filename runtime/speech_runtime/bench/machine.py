"""What the times were measured on."""

import os
import platform
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16")
"""What decides how fast a processor multiplies, as Linux names it."""
_PACKAGES = ("speech-export", "onnxruntime", "onnxruntime-gpu", "numpy")
_GPU_PACKAGES = ("tensorrt", "tensorrt-rtx-cu13")
_AVAILABLE = re.compile(r"^MemAvailable:\s*(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True)
class Machine:
    """A machine and the versions on it.

    Attributes:
        processor: its name.
        cores: that this process may use.
        features: those of `_FLAGS` that the processor has.
        memory: physical, bytes.
        system: name and release of the operating system.
        versions: of packages.
        gpu: its name; None where nothing runs on it.
    """

    processor: str
    cores: int
    features: tuple[str, ...]
    memory: int
    system: str
    versions: dict[str, str]
    gpu: str | None = None

    @classmethod
    def here(cls, packages: tuple[str, ...] = _PACKAGES, gpu: str | None = None) -> "Machine":
        """This machine, with the versions of those `packages` that are installed."""
        info = _read("/proc/cpuinfo")
        name = re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE)
        flags = re.search(r"^flags\s*:\s*(.+)$", info, re.MULTILINE)
        known = set(flags[1].split()) if flags else set()
        return cls(
            processor=name[1] if name else platform.processor() or platform.machine(),
            cores=_cores(),
            features=tuple(flag for flag in _FLAGS if flag in known),
            memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            system=f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
            versions=_versions(packages if gpu is None else (*packages, *_GPU_PACKAGES)),
            gpu=gpu,
        )

    def describe(self) -> str:
        """One line for people."""
        features = ", ".join(self.features) or "features unknown"
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        gpu = "" if self.gpu is None else f"{self.gpu}; "
        return f"{gpu}{self.processor}, {self.cores} cores ({features}), {self.memory / 2**30:.0f} GiB; {versions}"


def available_memory() -> int | None:
    """Bytes that a new process may take without swapping; None where the system does not say."""
    found = _AVAILABLE.search(_read("/proc/meminfo"))
    return int(found[1]) * 1024 if found else None


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # Linux
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
