"""Test that a process with threads in native code ends cleanly, and so does a child forked beside them."""

import subprocess
import sys
from pathlib import Path

import pytest

from handmade_bundle import make_bundle

BUSY = """
import os, sys, threading, time
import numpy as np
from speech_runtime import Bundle, SessionOptions
from speech_runtime.bundle.graph_io import ENCODER, ENCODER_HIDDEN_STATES
from speech_runtime.backends.onnxruntime.backend import OnnxRuntimeBackend

backend = OnnxRuntimeBackend(Bundle.open(sys.argv[1]), SessionOptions(intra_op_threads=1))
inputs = dict.fromkeys(["input_values", "attention_mask"], backend.upload(np.ones((20_000, 32), np.float32)))
begun = threading.Semaphore(0)

def work():
    while True:
        backend.run(ENCODER, inputs, [ENCODER_HIDDEN_STATES])
        begun.release()

for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
for _ in range(8):
    begun.acquire()
"""

INTERRUPTED = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore SIGINT by default
os.kill(os.getpid(), signal.SIGINT)
time.sleep(5)
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle")


def run(code: str, bundle: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", BUSY + code, str(bundle)], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("raise ValueError('on purpose')", 1),
        (INTERRUPTED, -2),
    ],
)
def test_daemon_threads_that_run_a_graph_do_not_abort_the_end(ending: str, expected: int, bundle: Path) -> None:
    done = run(ending, bundle)
    assert done.returncode == expected, done.stderr
    assert "terminate called" not in done.stderr


def test_a_graph_may_still_be_run_at_the_end_by_the_main_thread(bundle: Path) -> None:
    at_end = (
        "import atexit\natexit._run_exitfuncs()\nbackend.run(ENCODER, inputs, [ENCODER_HIDDEN_STATES]); print('ran')"
    )
    done = run(at_end, bundle)
    assert (done.returncode, done.stdout) == (0, "ran\n"), done.stderr


def test_a_child_that_is_forked_beside_running_threads_does_not_wait_for_them(bundle: Path) -> None:
    # `os._exit`, as in multiprocessing: ONNX Runtime does not support a normal exit of a forked child.
    fork = """
import atexit
child = os.fork()
if not child:
    atexit._run_exitfuncs()
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = run(fork, bundle)
    assert (done.returncode, done.stdout) == (0, "7\n"), done.stderr
