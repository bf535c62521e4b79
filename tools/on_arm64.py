"""Test the runtime on arm64: bundles of every kind are exported here and transcribed there.

    make test-arm64 ROOT=/path/to/an/arm64/debian

ROOT is the root of a file system for arm64 with Python and venv, as debootstrap makes one. On another processor
qemu-user emulates it, and pip takes ten minutes. It must be run as root, for chroot.
"""

import csv
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from click.testing import CliRunner

from speech_export.cli.export import main as speech_export

REPOSITORY = Path(__file__).resolve().parents[1]
CHECKPOINT = REPOSITORY / "examples" / "digits" / "checkpoint"
CLIPS = REPOSITORY / "examples" / "digits" / "audio"
AUDIO = ("--calibration-audio", str(CLIPS))
KINDS = {
    "float32": (),
    "int8": ("--precision", "int8", *AUDIO),
    "int4": ("--precision", "int4", *AUDIO),
    "int8-encoder": ("--encoder-precision", "int8", *AUDIO),
    "int8-decoder": ("--decoder-precision", "int8", *AUDIO),
    "tensorrt": ("--target", "tensorrt"),
    "tensorrt-int8": ("--target", "tensorrt", "--precision", "int8", *AUDIO),
    "cuda": ("--target", "cuda"),
    "tensorrt-static-cache": ("--target", "tensorrt", "--static-cache", "64"),
}
"""Flags for every precision and every set of operators that a CPU runs; half precision is for GPUs only."""
THERE = Path("/opt/speech-export")
"""Directory of the wheel, bundles and clips in the other root."""


def export_all(directory: Path) -> None:
    """Export the bundled model in every kind, each into a folder of its name."""
    for kind, flags in KINDS.items():
        result = CliRunner().invoke(speech_export, [str(CHECKPOINT), "-o", str(directory / kind), *flags])
        if result.exit_code:
            raise SystemExit(f"{kind}: {result.output}")


def run_there(root: Path, command: str) -> str:
    """Run a shell command in `root`; its mounts end with it.

    Returns:
        What it printed.
    """
    mounts = f"mount -t proc proc {root}/proc && mount --rbind /dev {root}/dev"
    kept = {name: os.environ[name] for name in ("PIP_CERT", "HTTPS_PROXY") if name in os.environ}
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/root", "LANG": "C.UTF-8"} | kept
    inside = f"exec chroot {shlex.quote(str(root))} sh -c {shlex.quote(command)}"
    found = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"{mounts} && {inside}"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return found.stdout


def main(root: Path) -> int:
    """Transcribe the clips with each bundle; 1 where a text is not what was said."""
    with (CLIPS / "reference.tsv").open(newline="") as file:
        said = {row["file"]: row["text"] for row in csv.DictReader(file, delimiter="\t")}
    shutil.copy("/etc/resolv.conf", root / "etc" / "resolv.conf")
    with tempfile.TemporaryDirectory() as scratch:
        export_all(Path(scratch))
        subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", scratch, REPOSITORY], check=True)
        shutil.copy(REPOSITORY / "constraints.txt", scratch)
        shutil.copytree(CLIPS, Path(scratch) / "audio")
        shutil.copytree(scratch, f"{root}{THERE}", dirs_exist_ok=True)
    run_there(
        root,
        f"cd {THERE} && python3 -m venv --clear venv"
        ' && venv/bin/pip install -c constraints.txt "$(echo speech_export-*.whl)[cpu,audio]" >&2',
    )
    machine = run_there(root, "uname -m && python3 --version").split("\n")
    print(f"Clips whose text is right, on {', '.join(filter(None, machine))}:")
    failed = False
    for kind in KINDS:
        heard = run_there(
            root, f"cd {THERE} && venv/bin/speech-transcribe {kind} {' '.join(f'audio/{name}' for name in said)}"
        )
        right = sum(text == expected for text, expected in zip(heard.splitlines(), said.values(), strict=True))
        print(f"{kind:20} {right} of {len(said)}", flush=True)
        failed |= right < len(said)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]).resolve()))
