"""Processes that publish small bundles over one another, and are killed at random: `publisher.py TARGET TRIES SIGNAL`.

They are forked from one that has imported everything, so that hundreds of tries take seconds. It prints how many found
the target there and how many found it missing, before the next run collects what is left.
"""

import json
import os
import random
import signal
import sys
import time
from itertools import count
from pathlib import Path

from speech_export.bundle_writer.staging import staged
from speech_runtime.atomic import writing
from speech_runtime.interrupts import signals_handled

FILES = ("bundle.json", "encoder.onnx", "decoder_init.onnx", "config.json")
LONGEST = 0.03
"""Seconds that a publisher lives; it publishes every few milliseconds."""


def content(number: int) -> str:
    return f'{{"number": {number}}}'


def publish(target: Path, number: int) -> None:
    with staged(target, overwrite=True) as new:
        for name in FILES:
            (new / name).write_text(content(number))


def publish_for_ever(target: Path) -> None:
    with signals_handled() as interrupts:  # as the export does
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
        for number in count():
            publish(target, number)
            interrupts.check()


def kill_at_random(target: Path, tries: int, number: signal.Signals) -> dict[str, int]:
    found = {"there": 0, "missing": 0}
    moments = random.Random(tries)  # noqa: S311 - of a test
    publish(target, -1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})  # until a child heeds them
    for _ in range(tries):
        child = os.fork()
        if not child:
            sys.stderr = None  # the traceback of an interrupt
            publish_for_ever(target)
        time.sleep(moments.uniform(0, LONGEST))
        os.kill(child, number)
        os.waitpid(child, 0)
        found["there" if target.exists() else "missing"] += 1
        writing.collect(target)
        texts = {(target / name).read_text() for name in FILES}
        assert len(texts) == 1, texts
        left = [path.name for path in target.parent.iterdir()]
        assert left == [target.name], left
    return found


if __name__ == "__main__":
    if "plain" in sys.argv:  # a system without an exchange of directories
        setattr(writing, "exchange", lambda one, other: False)  # noqa: B010 - it is imported there
    found = kill_at_random(Path(sys.argv[1]), int(sys.argv[2]), signal.Signals(int(sys.argv[3])))
    sys.stdout.write(json.dumps(found))
