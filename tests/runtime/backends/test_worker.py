"""Test the thread of the recorded steps: interrupts, errors, its end, forks, and the end of the interpreter."""

import ctypes
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from speech_runtime import EngineError
from speech_runtime.backends.cuda import worker
from speech_runtime.backends.cuda.worker import Worker

SOON = 10.0


def test_all_callers_share_one_thread() -> None:
    run = Worker("test")
    with ThreadPoolExecutor(4) as callers:
        found = set(callers.map(lambda _: run(threading.get_ident), range(20)))
    assert len(found) == 1
    assert threading.get_ident() not in found


def test_errors_are_the_callers() -> None:
    run = Worker("test")
    for error in (ValueError("on purpose"), SystemExit(3), KeyboardInterrupt()):
        with pytest.raises(type(error)) as raised:
            run(partial(raise_, error))
        assert raised.value is error
    assert run(lambda: 5) == 5


def raise_(error: BaseException) -> None:
    raise error


def test_an_interrupt_waits_for_the_job_which_uses_the_callers_tensors() -> None:
    run, done = Worker("test"), []

    def job() -> None:
        for _ in range(2):  # Ctrl-C twice
            signal.raise_signal(signal.SIGINT) if threading.current_thread() is threading.main_thread() else None
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
        done.append(1)

    with pytest.raises(KeyboardInterrupt):
        run(job)
    assert done == [1]
    assert run(lambda: 5) == 5


def test_the_thread_ends_with_its_owner_and_keeps_nothing() -> None:
    class Tensor:
        pass

    run, tensor = Worker("test"), Tensor()
    thread, alive = run._thread, weakref.ref(tensor)
    run(partial(id, tensor))
    del tensor
    run(lambda: None)  # the thread has let go of the job before
    assert alive() is None
    del run
    gc.collect()
    thread.join(SOON)
    assert not thread.is_alive()


def test_the_owner_may_be_collected_by_its_own_thread() -> None:
    class Model:
        def __init__(self) -> None:
            self.run = Worker("test")

        def job(self) -> None:
            pass

    model = Model()
    thread, jobs = model.run._thread, model.run._jobs
    begun, end = threading.Event(), threading.Event()

    def hold(_: Model) -> None:
        begun.set()
        end.wait(SOON)

    job = worker._Job(partial(hold, model))
    jobs.put(job)
    assert begun.wait(SOON)
    del model, job  # the thread has the last reference
    end.set()
    thread.join(SOON)
    assert not thread.is_alive()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_caller_does_not_wait_for_a_thread_that_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_CHECK_SECONDS", 0.01)
    run = Worker("test")
    # The next job meets an exception outside of itself, as if the thread were killed.
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(run._thread.ident or 0), ctypes.py_object(SystemExit))
    with pytest.raises(EngineError, match="the thread that runs the recorded steps has ended; load the model again"):
        run(lambda: 5)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_is_told_to_load_the_model_itself() -> None:
    run = Worker("test")
    child = os.fork()
    if not child:
        signal.alarm(round(SOON))  # ends the child if it waits
        try:
            run(lambda: 5)
        except EngineError as error:
            os._exit(7 if "load the model in the child" in str(error) else 8)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert run(lambda: 5) == 5


DAEMONS = """
import sys, threading, time
from speech_runtime.backends.cuda.captures import CUDA_CALLS
from speech_runtime.backends.cuda.worker import Worker
from speech_runtime.backends.native_calls import NATIVE_CALLS

run, begun = Worker("test"), threading.Semaphore(0)

def step():
    with CUDA_CALLS:
        time.sleep(1e-3)

def search():
    while True:
        with NATIVE_CALLS:
            run(step) or CUDA_CALLS.alone(lambda: time.sleep(1e-3))
        begun.release()

for _ in range(4):
    threading.Thread(target=search, daemon=True).start()
for _ in range(8):
    begun.acquire()
"""


@pytest.mark.parametrize(
    ("ending", "code", "printed"),
    [
        ("", 0, ""),
        ("raise ValueError('on purpose')", 1, ""),
        ("import atexit; atexit._run_exitfuncs(); run(step); print('ran')", 0, "ran\n"),
    ],
)
def test_the_interpreter_ends_beside_threads_that_search(ending: str, code: int, printed: str) -> None:
    command = [sys.executable, "-c", DAEMONS + ending]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (code, printed), done.stderr
