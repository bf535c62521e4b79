"""The tested set of packages, `constraints.txt`: written by uv out of pyproject.toml, and proven to resolve elsewhere.

    make lock                     write it; what it has stays where it still can
    make lock LOCK=--upgrade      … with the newest of everything
    make lock-check               is it current, and does every extra resolve on every platform and Python?

uv sees nothing of this machine: no configuration of pip or uv, no local wheels, no cache. It asks the public registry,
and takes wheels only, so that what resolves also installs without a compiler.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = REPOSITORY / "pyproject.toml"
CONSTRAINTS = REPOSITORY / "constraints.txt"
PAGE = REPOSITORY / "docs" / "install.md"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = {
    "Linux x86-64": "x86_64-manylinux_2_36",  # the glibc of Debian 12
    "Linux arm64": "aarch64-manylinux_2_36",
    "macOS 14 arm64": "aarch64-apple-darwin",
    "Windows x86-64": "x86_64-pc-windows-msvc",
}
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
PASSED_ON = ("PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", *_PROXIES, *map(str.lower, _PROXIES))
"""Variables of this machine that uv may see: how to reach the registry, and nothing of what it answers."""
BUILT = ("tensorrt-rtx-cu13",)
"""Packages without wheels that need no compiler: this one holds a few lines of Python over its two wheels."""
NOT_IN_THE_REGISTRY = "tensorrt ; python_version < '3'\n"
"""A placeholder without wheels: it downloads TensorRT from NVIDIA when pip installs it, so nothing here resolves it."""


@dataclass(frozen=True)
class Cell:
    """One cell of the table: an extra on a platform and a Python.

    Attributes:
        packages: names of all that would be installed.
        error: Error of uv if the set does not resolve, else empty.
    """

    packages: frozenset[str]
    error: str = ""


class Resolver:
    """uv in an environment of its own."""

    def __init__(self, scratch: Path) -> None:
        """Keep everything that uv writes in `scratch`."""
        self._overrides = scratch / "overrides.txt"
        self._overrides.write_text(NOT_IN_THE_REGISTRY)
        own = {
            "HOME": scratch,
            "XDG_CONFIG_HOME": scratch,
            "XDG_CONFIG_DIRS": scratch,
            "UV_CACHE_DIR": scratch / "cache",
        }
        passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        self._environment = (
            passed | {name: str(path) for name, path in own.items()} | {"MACOSX_DEPLOYMENT_TARGET": "14.0"}
        )

    def _compile(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ("uv", "pip", "compile", "--quiet", "--no-config", "--no-annotate", PROJECT)
        where = ("--python", sys.executable, "--override", self._overrides)
        wheels_only = ("--only-binary", ":all:", *(flag for name in BUILT for flag in ("--no-binary", name)))
        return subprocess.run(
            [*command, *where, *wheels_only, *arguments],
            cwd=REPOSITORY,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def lock(self, target: Path, *flags: str) -> None:
        """Write the tested set to `target`; versions that are there already are kept where they still can be."""
        written_by = ("--custom-compile-command", "make lock", "--output-file", str(target))
        found = self._compile("--universal", "--python-version", PYTHONS[0], "--all-extras", *written_by, *flags)
        if found.returncode:
            raise SystemExit(found.stderr)

    def resolve(self, extra: str, platform: str, python: str) -> Cell:
        """Return the packages that pip would install for an extra; "" is no extra."""
        where = (
            "--python-platform",
            PLATFORMS[platform],
            "--python-version",
            python,
            "--constraints",
            str(CONSTRAINTS),
        )
        found = self._compile("--no-header", *where, *(("--extra", extra) if extra else ()))
        if found.returncode:
            return Cell(frozenset(), found.stderr.strip())
        return Cell(frozenset(line.partition("==")[0] for line in found.stdout.split("\n") if "==" in line))


def direct_requirements(extra: str) -> frozenset[str]:
    """Names of the packages that an extra asks for itself, or through another extra of ours."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]

    def names(lines: list[str]) -> Iterator[str]:
        for requirement in map(Requirement, lines):
            if requirement.name == project["name"]:
                for other in requirement.extras:
                    yield from names(extras[other])
            else:
                yield canonicalize_name(requirement.name)

    return frozenset(names(extras[extra] if extra else project["dependencies"]))


def describe(extra: str, cell: Cell) -> str:
    """A cell in words: how many packages, and which of those that the extra asks for have no wheel there."""
    if cell.error:
        return "**does not resolve**"
    absent = direct_requirements(extra) - cell.packages
    if absent == direct_requirements(extra):
        return "none there"
    return " ".join([str(len(cell.packages)), *(f"− {name}" for name in sorted(absent))])


def table(cells: dict[tuple[str, str, str], Cell], extras: list[str]) -> str:
    """Platforms × Pythons × extras as Markdown: how many packages each installs."""
    lines = [f"| extra | {' | '.join(PLATFORMS)} |", f"|---|{'---|' * len(PLATFORMS)}"]
    for extra in extras:
        texts = []
        for platform in PLATFORMS:
            said = {python: describe(extra, cells[extra, platform, python]) for python in PYTHONS}
            same = len(set(said.values())) == 1
            texts.append(said[PYTHONS[0]] if same else ", ".join(f"{python}: {text}" for python, text in said.items()))
        lines.append(f"| {f'`{extra}`' if extra else '(none)'} | {' | '.join(texts)} |")
    return "\n".join(lines)


def check(resolver: Resolver, scratch: Path) -> int:
    """Print the table; 1 where the tested set or the docs' table is stale, or something does not resolve."""
    again = scratch / "constraints.txt"
    again.write_text(CONSTRAINTS.read_text())
    resolver.lock(again)
    if again.read_text() != CONSTRAINTS.read_text():
        print("constraints.txt is not what pyproject.toml makes: run make lock, and commit what it writes")
        return 1
    extras = ["", *tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"]]
    wanted = list(product(extras, PLATFORMS, PYTHONS))
    with ThreadPoolExecutor(4) as pool:
        cells = dict(zip(wanted, pool.map(lambda cell: resolver.resolve(*cell), wanted), strict=True))
    found = table(cells, extras)
    print(f"Packages that pip would install, on each of Python {', '.join(PYTHONS)}:\n\n{found}")
    failed = {cell: resolved.error for cell, resolved in cells.items() if resolved.error}
    for (extra, platform, python), error in failed.items():
        print(f"\n[{extra}] on {platform}, Python {python}:\n{error}")
    stale = found not in PAGE.read_text()
    if stale:
        print(f"\n{PAGE.relative_to(REPOSITORY)} has another table: put this one there")
    return 1 if failed or stale else 0


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description="Write or check the tested set of packages.")
    parser.add_argument("--check", action="store_true", help="check it, and write nothing")
    parser.add_argument("--upgrade", action="store_true", help="take the newest of everything")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        resolver = Resolver(Path(scratch))
        if arguments.check:
            return check(resolver, Path(scratch))
        resolver.lock(CONSTRAINTS, *(["--upgrade"] if arguments.upgrade else []))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
