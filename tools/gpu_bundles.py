"""Export the bundles that tests/gpu needs to build/gpu-bundles, to be copied to a machine with a GPU.

    make gpu-bundles                                  those that are not there yet
    python tools/gpu_bundles.py --only 'gpt2|digits'  … whose names match
    python tools/gpu_bundles.py --again               all, once more

An export takes 20 s of a core for a tiny model, and minutes and gigabytes for a real width. What cannot be exported is
named, and the others go on.
"""

import argparse
import re
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path

import torch

from gpu_cases import ARCHIVES, CASES, Case
from short_audio import verified_on_short_audio
from speech_export import ExportError, export
from speech_runtime.system import MIB
from weightless import pack

_FAILED = "failed"


def write(case: Case) -> None:
    """Export a case, and write its archive.

    Raises:
        ExportError: it cannot be exported.
    """
    with tempfile.TemporaryDirectory() as scratch, nullcontext() if case.keep_weights else verified_on_short_audio():
        bundle = export(case.model(), Path(scratch) / "bundle", **case.settings)
        pack(bundle.directory, case.archive, keep_weights=case.keep_weights)


def outcome(name: str) -> str:
    """Export the case of that name, and return its size, or why it failed."""
    torch.set_num_threads(1)  # each process has a core
    case, begin = next(case for case in CASES if case.name == name), time.perf_counter()
    try:
        write(case)
    except ExportError as error:
        return f"{_FAILED}: {error}"
    return f"{case.archive.stat().st_size / MIB:.2f} MiB in {time.perf_counter() - begin:.0f} s"


def main() -> int:
    """See the module; 1 if an export failed."""
    parser = argparse.ArgumentParser(description="Export the bundles that tests/gpu needs.")
    parser.add_argument("--only", default="", help="a regular expression that the names must match")
    parser.add_argument("--again", action="store_true", help="export what is there already, too")
    parser.add_argument("--jobs", type=int, default=2, help="number of exports at a time")
    arguments = parser.parse_args()
    ARCHIVES.mkdir(parents=True, exist_ok=True)
    named = [case for case in CASES if re.search(arguments.only, case.name)]
    wanted = [case for case in named if arguments.again or not case.archive.exists()]
    failed = 0
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(outcome, case.name): case.name for case in wanted}
        for place, done in enumerate(as_completed(running), 1):
            said = done.result()
            failed += said.startswith(_FAILED)
            print(f"[{place}/{len(wanted)}] {running[done]}: {said}", flush=True)
    total = sum(path.stat().st_size for path in ARCHIVES.iterdir())
    print(f"{len(named)} bundles in {ARCHIVES}, {total / MIB:.1f} MiB with the others there")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
