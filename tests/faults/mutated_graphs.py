"""Load and run bundles with one graph mutated, as an attacker or a bad tool would leave them, their hashes made to fit.

`mutated_graphs.py BUNDLE WORK CLIP FIRST LAST` runs the tries FIRST … LAST-1, each of which follows from its number
alone, and prints a line of JSON before each and after it. ONNX Runtime may end the process: whoever started it sees
from the last line which try that was.
"""

import json
import os
import random
import resource
import shutil
import sys
import traceback
from pathlib import Path

import numpy as np

from speech_runtime import Bundle, BundleError, OnnxSpeechSeq2Seq, SessionOptions, SpeechError
from speech_runtime.bundle.graph_io import GRAPHS
from speech_runtime.bundle.manifest import MANIFEST
from speech_runtime.bundle.safe_files import FileFacts

ONE_THREAD = SessionOptions(intra_op_threads=1)
MEMORY = 8 * 2**30
"""Bytes of addresses: a size in a graph that was mutated shall not take the machine's memory."""


def mutated(content: bytes, dice: random.Random) -> bytes:
    """The same bytes with something flipped, cut out, put in, set to zero or copied from elsewhere."""
    changed = bytearray(content)
    at = dice.randrange(len(changed))
    length = dice.choice((1, 1, 2, 4, 16, 64, 1024))
    kind = dice.choice(("flip", "flip", "flips", "byte", "cut", "end", "insert", "zero", "copy"))
    if kind == "flip":
        changed[at] ^= 1 << dice.randrange(8)
    elif kind == "flips":
        for _ in range(dice.randrange(2, 12)):
            changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    elif kind == "byte":
        changed[at] = dice.choice((0x00, 0x01, 0x7F, 0x80, 0xFF))
    elif kind == "cut":
        del changed[at : at + length]
    elif kind == "end":
        del changed[at:]
    elif kind == "insert":
        changed[at:at] = dice.randbytes(length)
    elif kind == "zero":
        changed[at : at + length] = bytes(len(changed[at : at + length]))
    else:
        source = dice.randrange(len(changed))
        changed[at : at + length] = changed[source : source + length]
    return bytes(changed)


def outcome(directory: Path, name: str, clip: Path) -> dict[str, str]:
    """Return the answer of the bundle with the mutated file `name`."""
    try:
        model = OnnxSpeechSeq2Seq.from_pretrained(directory, options=ONE_THREAD)
        model.transcribe(clip, num_beams=2, max_new_tokens=8)
    except SpeechError as error:
        return {"kind": type(error).__name__, "said": str(error), "graph": name.partition(".")[0]}
    except BaseException:
        return {"kind": "traceback", "said": traceback.format_exc(), "graph": name.partition(".")[0]}
    return {"kind": "answer", "said": "", "graph": name.partition(".")[0]}


def refused_by_hash(directory: Path, name: str) -> bool:
    try:
        Bundle.open(directory)
    except BundleError as error:
        return f"{name} was changed after the export" in str(error) or f"{name} has " in str(error)
    return False


def attempt(whole: Path, work: Path, clip: Path, number: int) -> dict[str, object]:
    """Mutate one graph as `number` says, and see what becomes of it; `work` is as it was in the end."""
    dice = random.Random(number)  # noqa: S311 - of a test
    name = f"{dice.choice(GRAPHS)}.onnx"
    original = (whole / name).read_bytes()
    while (content := mutated(original, dice)) == original:
        pass
    (work / name).write_bytes(content)
    by_hash = refused_by_hash(work, name)
    manifest = json.loads((whole / MANIFEST).read_text())
    manifest["files"][name] = vars(FileFacts.of(work / name))
    (work / MANIFEST).write_text(json.dumps(manifest))
    found = outcome(work, name, clip)
    restored(whole, work, name)
    return {"refused by hash": by_hash, **found}


def restored(whole: Path, work: Path, *names: str) -> None:
    for name in (*names, MANIFEST):
        shutil.copy(whole / name, work / name)


def main(whole: Path, work: Path, clip: Path, first: int, last: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    np.seterr(all="ignore")
    shutil.copytree(whole, work, dirs_exist_ok=True)  # what a process that crashed has left is whole again
    with os.fdopen(os.dup(1), "w") as lines:
        os.dup2(2, 1)  # what libraries print to stdout is none of it
        for number in range(first, last):
            print(json.dumps({"try": number}), file=lines, flush=True)
            print(json.dumps(attempt(whole, work, clip, number)), file=lines, flush=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), *map(int, sys.argv[4:6]))  # type: ignore[arg-type]
