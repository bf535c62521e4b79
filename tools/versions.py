"""Run a core of the tests with other versions that pyproject.toml allows, and write the table of docs/install.md.

    make test-versions                        three sets of versions, some 20 minutes and 7 GB each
    make test-versions VERSIONS=lowest        one of them: lowest, between, newest

Each set gets an environment of its own in build/versions, which is removed after its tests. The table has the sets that
passed; a set that fails exits with 1, and with what failed.
"""

import argparse
import datetime
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import markdown_table

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs" / "install.md"
BEGIN, END = "<!-- `make test-versions` writes this table -->\n", "<!-- the table of versions ends here -->\n"
SHOWN = ("transformers", "torch", "onnxruntime", "onnx", "numpy")
EXTRAS = "cpu,audio,export,hub,peft,tensorrt-rtx"
TOOLS = ("pytest", "pytest-xdist", "hypothesis", "filelock", "jiwer")
CORE = (
    *(f"tests/parity/test_{name}.py" for name in ("families", "digits", "generate", "padding", "outputs")),
    *("tests/exporter/sources", "tests/exporter/tokenizers", "tests/runtime/generation", "tests/runtime/audio"),
)
"""Tests of each family, of searches and their settings, of sources and tokenizers: what other packages could change."""
OF_THE_TESTED_SET = "tests/parity/test_families.py::test_every_family_that_transformers_registers_is_in_the_table"
"""A test of docs/support.md, which is written with one release of transformers."""


@dataclass(frozen=True)
class VersionSet:
    """Versions to test.

    Attributes:
        pythons: Pythons to try, the first that is found is used.
        flags: More flags of uv.
        pins: Versions by package; the newest of everything else.
    """

    pythons: tuple[str, ...]
    flags: tuple[str, ...] = ()
    pins: Mapping[str, str] = field(default_factory=dict)


SETS = {
    "lowest": VersionSet(("3.11",), ("--resolution", "lowest-direct")),
    "between": VersionSet(
        ("3.12", "3.11"), pins={"transformers": "5.22.2", "torch": "2.12.1", "onnxruntime": "1.30.0", "onnx": "1.22.0"}
    ),
    "newest": VersionSet(("3.14", "3.13", "3.12")),
}


@dataclass(frozen=True)
class Environment:
    """An environment with one set of versions."""

    directory: Path
    name: str

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.directory / "bin" / "python"

    def install(self, versions: VersionSet) -> None:
        """Make it, with this project and the tools of its tests; the tools change no version of the project's."""
        shutil.rmtree(self.directory, ignore_errors=True)
        for python in filter(None, [*map(_here, versions.pythons), *versions.pythons]):  # uv fetches one if it must
            if (
                subprocess.run(["uv", "venv", "--quiet", "--python", python, self.directory], check=False).returncode
                == 0
            ):
                break
        else:
            raise SystemExit(f"{self.name}: there is no Python {' or '.join(versions.pythons)}; install one")
        pins = [f"{package}=={version}" for package, version in versions.pins.items()]
        self._uv("install", *versions.flags, "--editable", f"{REPOSITORY}[{EXTRAS}]", *pins)
        kept = self.directory / "installed.txt"
        kept.write_text("".join(f"{name}=={version}\n" for name, version in self.versions().items()))
        self._uv("install", "--constraint", kept, *TOOLS)

    def versions(self) -> dict[str, str]:
        """Return the versions of the packages from the registry, by name."""
        listed = self._uv("list", "--format", "freeze", "--exclude-editable")
        return dict(line.split("==") for line in listed.splitlines() if "==" in line)

    def test(self) -> tuple[int, str]:
        """Run the core of the tests; return pytest's exit code and its last line."""
        command = [str(self.python), "-m", "pytest", "-n", "2", "--dist", "worksteal", "-q", *CORE]
        command += ["--deselect", OF_THE_TESTED_SET]
        environment = {**os.environ, "PATH": f"{self.python.parent}{os.pathsep}{os.environ['PATH']}"}
        with subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True) as running:
            lines = []
            for line in running.stdout or ():
                sys.stdout.write(line)
                lines.append(line)
        return running.returncode, lines[-1].strip("= \n") if lines else "no output"

    def _uv(self, *arguments: object) -> str:
        command = ["uv", "--no-config", "pip", arguments[0], "--python", self.python, *arguments[1:]]
        return subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True).stdout


def _here(version: str) -> str | None:
    """Return the path of a Python that runs; pyenv keeps its own off PATH."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    for candidate in (shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python"))):
        if candidate and subprocess.run([candidate, "--version"], capture_output=True, check=False).returncode == 0:
            return str(candidate)
    return None


def row(name: str, environment: Environment, outcome: str) -> tuple[str, markdown_table.Cells]:
    """Return the row of a set that passed."""
    found = environment.versions()
    code = "import platform; print(platform.python_version())"
    python = subprocess.check_output([environment.python, "-c", code], text=True)
    passed = re.search(r"(\d+) passed", outcome)
    return name, {
        "Python": python.strip(),
        **{package: found.get(package, "") for package in SHOWN},
        "tests passed": f"{int(passed[1]):,}" if passed else "none",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def write(rows: dict[str, markdown_table.Cells], page: Path = PAGE) -> None:
    """Put rows into the table, in place of those with the same name."""
    before, table, after = _parts(page.read_text(encoding="utf-8"))
    merged = {**markdown_table.read(table), **rows}
    columns = ("Python", *SHOWN, "tests passed", "date")
    ordered = [(name, merged[name]) for name in SETS if name in merged]
    written = f"{before}{BEGIN}\n{markdown_table.write(columns, ordered)}\n{END}{after}"
    page.write_text(written, encoding="utf-8")


def _parts(text: str) -> tuple[str, str, str]:
    before, begin, rest = text.partition(BEGIN)
    table, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{PAGE} has lost a mark of its table: {BEGIN if not begin else END}")
    return before, table, after


def main() -> None:
    """Test the sets that are named, or all."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("sets", nargs="*", choices=[[], *SETS], help="sets to test; all by default")
    arguments.add_argument("--keep", action="store_true", help="do not remove the environments")
    options = arguments.parse_args()
    failed = []
    for name in options.sets or SETS:
        environment = Environment(REPOSITORY / "build" / "versions" / name, name)
        environment.install(SETS[name])
        code, outcome = environment.test()
        print(f"{name}: {outcome}")
        if code == 0:
            write(dict([row(name, environment, outcome)]))
        else:
            failed.append(name)
        if not options.keep:
            shutil.rmtree(environment.directory)
    if failed:
        sys.exit(f"These versions fail: {', '.join(failed)}. Mend it, or raise the lower bounds in pyproject.toml.")


if __name__ == "__main__":
    main()
