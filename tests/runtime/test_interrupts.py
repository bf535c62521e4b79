"""Test signals: none is swallowed in a callback or turned into another error, and each has its exit code."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from speech_runtime.cli.entry import exit_when_interrupted
from speech_runtime.errors import EngineError
from speech_runtime.interrupts import Interrupted, held, interruption, signals_handled

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


@pytest.fixture(params=CODES, ids=lambda number: number.name)
def number(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield request.param
    signal.signal(signal.SIGINT, before)


class Thing:
    """Something that a weak reference can be made of."""


def in_a_weakref_callback(number: signal.Signals) -> None:
    thing = Thing()
    _ = weakref.ref(thing, lambda _: signal.raise_signal(number))
    del thing


def in_a_finalizer(number: signal.Signals) -> None:
    class Finalized:
        def __del__(self) -> None:
            signal.raise_signal(number)

    Finalized()


def in_a_library(number: signal.Signals) -> None:
    ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(number))()


@pytest.mark.parametrize("swallow", [in_a_weakref_callback, in_a_finalizer, in_a_library])
def test_what_a_callback_swallows_comes_again(
    swallow: Callable[[signal.Signals], None], number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    begin = time.perf_counter()
    with pytest.raises(Interrupted), signals_handled():
        swallow(number)
        time.sleep(10)
    assert time.perf_counter() - begin < 5
    assert capfd.readouterr().err == ""


def relabelled(number: signal.Signals) -> None:
    try:
        signal.raise_signal(number)
    except KeyboardInterrupt as error:
        raise EngineError("ONNX Runtime is not installed") from error


def forgotten(number: signal.Signals) -> None:
    with suppress(BaseException):  # as some libraries do
        signal.raise_signal(number)


def replaced(number: signal.Signals) -> None:
    try:
        signal.raise_signal(number)
    except KeyboardInterrupt:
        sys.exit(1)


@pytest.mark.parametrize("work", [relabelled, forgotten, replaced, signal.raise_signal])
def test_it_decides_how_a_command_ends(
    work: Callable[[signal.Signals], None], number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [signal.getsignal(each) for each in CODES]
    with pytest.raises(SystemExit) as ended, exit_when_interrupted():
        with exit_when_interrupted():
            work(number)
        pytest.fail("it went on")
    assert ended.value.code == CODES[number]
    assert capsys.readouterr().err.strip() == "Interrupted"
    assert [signal.getsignal(each) for each in CODES] == before


def test_a_second_signal_is_told_no_second_time(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    """GNU timeout sends its signal to the process, and then to the group of the process."""
    with pytest.raises(SystemExit) as ended, exit_when_interrupted():
        try:
            with exit_when_interrupted():
                signal.raise_signal(number)
        finally:
            signal.raise_signal(number)
    assert ended.value.code == CODES[number]
    assert capsys.readouterr().err.strip() == "Interrupted"


def test_a_held_signal_waits_and_a_second_does_not(number: signal.Signals) -> None:
    done = []
    with pytest.raises(Interrupted), signals_handled():
        with held():
            signal.raise_signal(number)
            done.append("whole")
        done.append("too far")
    assert done == ["whole"]
    with pytest.raises(Interrupted), signals_handled(), held():
        signal.raise_signal(number)
        signal.raise_signal(number)
        pytest.fail("the second waits too")


def test_handlers_of_others_are_left_alone(number: signal.Signals) -> None:
    seen = []
    before = signal.signal(number, lambda *_: seen.append("theirs"))
    try:
        with signals_handled(), held():
            signal.raise_signal(number)
    finally:
        signal.signal(number, before)
    assert seen == ["theirs"]


def test_other_threads_heed_nothing_and_hold_nothing() -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with signals_handled(), held():
                pass
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failures


class CutOff:
    """Something that complains when it is deleted, because it was never completed."""

    def __del__(self) -> None:
        raise AttributeError("it has no attribute")


def test_what_was_cut_off_does_not_complain(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", shown.append)
    with pytest.raises(Interrupted), signals_handled():
        CutOff()
        assert len(shown) == 1
        with suppress(Interrupted):
            signal.raise_signal(number)
        CutOff()
    assert len(shown) == 1


def test_a_command_that_was_interrupted_says_nothing_more_at_its_end() -> None:
    lines = (
        "import sys, types, signal, speech_runtime.cli.entry as entry",
        "class CutOff:",
        "    def __del__(self): raise AttributeError('it has no attribute')",
        "kept = CutOff()",
        "sys.modules['command'] = types.SimpleNamespace(main=lambda *_: signal.raise_signal(signal.SIGTERM))",
        "entry.run('command')",
    )
    ended = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert ended.returncode == 143
    assert ended.stderr.strip() == "Interrupted"


def test_the_interrupt_that_an_error_came_of_is_found() -> None:
    interrupt = KeyboardInterrupt()
    error = ValueError("cannot be exported")
    error.__cause__ = RuntimeError()
    error.__cause__.__context__ = interrupt
    assert interruption(error) is interrupt
    error.__cause__.__context__ = error  # a circle
    assert interruption(error) is None


def test_a_command_heeds_signals_before_it_imports_anything_that_takes_long() -> None:
    code = "import sys, speech_runtime.cli.commands; print([m for m in ('numpy', 'click') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert done.stdout == "[]\n", done
