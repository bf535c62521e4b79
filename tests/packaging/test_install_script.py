"""Test `tools/install.sh` on made-up machines: the Python that it chooses, and its error where none will do."""

import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import REPOSITORY

SCRIPT = REPOSITORY / "tools" / "install.sh"
PROGRAMS = ("sh", "dirname", "mkdir", "cp", "touch")
PYTHON = """#!/bin/sh
case "$*" in
  *version_info*) echo {version} ;;
  "-m ensurepip") touch "${{0%python}}pip" ;;
  *ensurepip*) exit {ensurepip} ;;
  *libc_ver*) echo {libc} ;;
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && touch "$3/bin/pip" ;;
  "-m pip --version") [ -e "${{0%python}}pip" ] ;;
  "-m pip "*) shift && echo "$@" ;;
esac
"""


class FakeMachine:
    """A PATH with nothing but some interpreters, and what every system has."""

    def __init__(self, directory: Path) -> None:
        self.bin, self.environment = directory / "bin", directory / "environment"
        self.bin.mkdir()
        for program in PROGRAMS:
            found = shutil.which(program)
            assert found
            (self.bin / program).symlink_to(found)
        self.is_a("Linux", "x86_64")

    def has(self, name: str, version: str, *, ensurepip: bool = True, libc: str = "glibc") -> "FakeMachine":
        self._script(name, PYTHON.format(version=version, ensurepip=0 if ensurepip else 1, libc=libc))
        return self

    def has_shim(self, name: str) -> "FakeMachine":
        """Write the shim that pyenv leaves on PATH for a version that is not selected."""
        self._script(name, f"#!/bin/sh\necho 'pyenv: {name}: command not found' >&2\nexit 127\n")
        return self

    def is_a(self, system: str, machine: str) -> "FakeMachine":
        case = f'case "$1" in -s) echo {system} ;; -m) echo {machine} ;; *) echo {system} {machine} ;; esac'
        self._script("uname", f"#!/bin/sh\n{case}\n")
        return self

    def install(self, extras: str = "export,cpu,audio", python: str = "") -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(self.bin), "VENV": str(self.environment), "PYTHON": python}
        return subprocess.run([SCRIPT, extras], env=environment, capture_output=True, text=True, check=False)

    def _script(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    return FakeMachine(tmp_path)


def said(result: subprocess.CompletedProcess[str]) -> str:
    """The error, which is one sentence, without a line of shell code."""
    assert result.returncode == 1
    assert result.stdout == ""
    assert "install.sh" not in result.stderr
    return " ".join(result.stderr.split())


def test_the_newest_python_is_taken_and_pip_gets_the_tested_set(machine: FakeMachine) -> None:
    machine.has("python3.11", "3.11").has("python3.13", "3.13").has("python3", "3.12")
    result = machine.install()
    assert result.returncode == 0, result.stderr
    announced, pip = result.stdout.splitlines()
    assert "[export,cpu,audio]" in announced
    assert "with Python 3.13:" in announced
    assert "GB to download" in announced
    assert pip == "pip install --no-user --disable-pip-version-check -c constraints.txt -e .[export,cpu,audio]"


@pytest.mark.parametrize("newer", ["3.15", "3.9"])
def test_a_python_that_is_not_tested_is_passed_over(machine: FakeMachine, newer: str) -> None:
    machine.has("python3", newer).has("python3.12", "3.12").has_shim("python3.14")
    assert "with Python 3.12:" in machine.install().stdout


def test_a_python_without_a_number_in_its_name_is_found(machine: FakeMachine) -> None:
    machine.has("python", "3.14")
    assert "with Python 3.14:" in machine.install().stdout


def test_the_python_that_is_named_wins(machine: FakeMachine) -> None:
    machine.has("python3.14", "3.14").has("mine", "3.15")
    assert "with Python 3.15:" in machine.install(python="mine").stdout


@pytest.mark.parametrize(
    ("python", "version", "message"),
    [
        ("", "3.10", "needs Python 3.11 to 3.14, and python3 on PATH is 3.10: apt install python3"),
        ("python3", "3.10", "PYTHON=python3 is Python 3.10, and 3.11 is the oldest that works: apt install python3"),
        ("python3", "2.7", "PYTHON=python3 is Python 2.7, and 3.11 is the oldest"),
        ("nowhere", "3.13", "PYTHON=nowhere does not run; give the path of a Python 3.11 or later"),
    ],
)
def test_too_old_or_not_there(machine: FakeMachine, python: str, version: str, message: str) -> None:
    machine.has("python3", version)
    assert message in said(machine.install(python=python))
    assert not machine.environment.exists()


def test_no_python_at_all(machine: FakeMachine) -> None:
    message = said(machine.install())
    assert "needs Python 3.11 to 3.14, and there is no python3 on PATH: apt install python3 python3-venv" in message
    assert "brew install python@3.13" in message
    assert "uv python install 3.13" in message


def test_without_ensurepip(machine: FakeMachine) -> None:
    machine.has("python3.12", "3.12", ensurepip=False)
    remedy = "python3.12 has no ensurepip, so it cannot make a virtual environment: apt install python3.12-venv"
    assert said(machine.install()) == remedy
    assert not machine.environment.exists()


@pytest.mark.parametrize(
    ("system", "architecture", "libc"),
    [("Linux", "x86_64", ""), ("Linux", "riscv64", "glibc"), ("Darwin", "x86_64", "")],
)
def test_a_platform_without_torch(machine: FakeMachine, system: str, architecture: str, libc: str) -> None:
    machine.is_a(system, architecture).has("python3.13", "3.13", libc=libc)
    assert f"torch and ONNX Runtime have no build for {system} {architecture}" in said(machine.install())
    assert machine.install("lock").returncode == 0


@pytest.mark.parametrize("kind", ["script", "link"])
def test_an_environment_whose_python_is_gone(machine: FakeMachine, kind: str) -> None:
    machine.has("python3.13", "3.13")
    assert machine.install().returncode == 0
    python = machine.environment / "bin" / "python"
    python.unlink()
    if kind == "link":
        python.symlink_to("/nowhere/python")
    else:
        python.write_text("#!/nowhere/python\n")
        python.chmod(0o755)
    assert "does not run any more; remove it with make clean, and try again" in said(machine.install())


def test_an_environment_without_pip(machine: FakeMachine) -> None:
    """Ctrl-C came while it was made, or uv made it."""
    machine.has("python3.13", "3.13")
    assert machine.install().returncode == 0
    (machine.environment / "bin" / "pip").unlink()
    result = machine.install()
    assert result.returncode == 0, result.stderr
    assert "pip install" in result.stdout
    assert (machine.environment / "bin" / "pip").exists()


def test_an_environment_of_another_python(machine: FakeMachine) -> None:
    machine.has("python3.13", "3.13").has("python3.12", "3.12")
    assert machine.install().returncode == 0
    assert "has Python 3.13, and PYTHON=python3.12 is another" in said(machine.install(python="python3.12"))
    assert machine.install(python="python3.13").returncode == 0
    machine.environment.joinpath("bin", "python").write_text(
        (machine.bin / "python3.12").read_text().replace("3.12", "3.10")
    )
    assert "has Python 3.10, and 3.11 is the oldest that works; make clean" in said(machine.install())
