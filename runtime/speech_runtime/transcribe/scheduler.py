"""`Scheduler`: a running batch for many threads, which clips join and leave at any step."""

import heapq
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from itertools import count
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self, Unpack

from ..audio import Audio, AudioLimits, Samples
from ..dataclass_json import shown
from ..errors import GenerationError, QueueFull, SchedulerClosed
from ..generation.call_options import CallOptions
from ..generation.config import GenerationConfig
from ..generation.decoding.session import DecodeSession
from ..generation.decoding.utterance import Utterance
from ..generation.search.base import rows_per_utterance
from ..generation.search.stopping import Deadline
from .batching import OF_PROMPTS, ClipKeywords
from .results import Transcription
from .scheduled_clips import EncodedClip, SubmittedClip
from .text_stream import TextStream

logger = logging.getLogger(__name__)

PRIORITY_SECONDS = 10.0
"""Head start of a clip for each unit of its priority: it waits as if it had come so much earlier, so none starves."""


@dataclass(frozen=True)
class SchedulerStats:
    """What a scheduler is doing, and what it has done.

    Attributes:
        running: Clips that are being decoded.
        waiting: Clips that wait for a place.
        rows: Sequences that the next step decodes a token of.
        steps: Steps so far, of all batches.
        tokens: New tokens of the best texts so far.
        audio_seconds: Seconds of audio that were transcribed.
        submitted: Clips that were taken.
        finished: Those that have a transcription.
        failed: Those that ended with an error.
        cancelled: Those that were cancelled.
    """

    running: int = 0
    waiting: int = 0
    rows: int = 0
    steps: int = 0
    tokens: int = 0
    audio_seconds: float = 0.0
    submitted: int = 0
    finished: int = 0
    failed: int = 0
    cancelled: int = 0


@dataclass(order=True)
class _Waiting:
    """A clip that waits; the first to be admitted is the least."""

    turn: float
    number: int
    clip: SubmittedClip = field(compare=False)
    future: "Future[Transcription]" = field(compare=False)


@dataclass
class _Running:
    clip: EncodedClip
    future: "Future[Transcription]"
    begin: float


class Scheduler:
    """Transcribes clips of many threads in one running batch, as `OnnxSpeechSeq2Seq.transcribe` would one by one.

    A thread of its own encodes and decodes. Between two steps it encodes at most one clip, so a clip delays the others
    by no more than its own encoding. Clips with other numbers of beams are decoded in batches of their own, in turn.
    Use it in a `with` statement, or call `close`.
    """

    def __init__(
        self,
        load: Callable[..., Samples],
        check: Callable[[Any], tuple[CallOptions, GenerationConfig]],
        prepare: Callable[[SubmittedClip], EncodedClip],
        max_utterances: int,
        max_waiting: int,
    ) -> None:
        """Start the thread. `OnnxSpeechSeq2Seq.scheduler` calls this.

        Args:
            load: Function that reads a clip, as `OnnxSpeechSeq2Seq.load`.
            check: Function that returns the options and settings of keywords.
            prepare: Function that encodes a clip.
            max_utterances: Largest number of clips that are decoded at a time.
            max_waiting: Largest number of clips that wait for that.

        Raises:
            GenerationError: A number is below 1.
        """
        for name, value in (("max_utterances", max_utterances), ("max_waiting", max_waiting)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise GenerationError(f"{name} is {shown(value)}, it must be an integer, 1 or more")
        self._load, self._check, self._prepare = load, check, prepare
        self._max_utterances, self._max_waiting = max_utterances, max_waiting
        self._waiting: list[_Waiting] = []
        self._loading = 0
        self._running: dict[Utterance, _Running] = {}
        self._sessions: dict[int, DecodeSession] = {}
        self._numbers = count()
        self._stats = SchedulerStats()
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="speech-scheduler", daemon=True)
        self._thread.start()

    def submit(
        self,
        audio: Audio,
        *,
        sampling_rate: int | None = None,
        limits: AudioLimits | None = None,
        priority: float = 0,
        **keywords: Unpack[ClipKeywords],
    ) -> "Future[Transcription]":
        """Have a clip transcribed. It is read here, in the caller's thread.

        Args:
            audio: Clip, as in `OnnxSpeechSeq2Seq.transcribe`.
            sampling_rate: Sampling rate of an array, as there.
            limits: Limits, as there.
            priority: A clip waits as if it had been submitted 10 s earlier for each unit.
            keywords: Settings and options, as there. `max_time` counts from now. `stream` and the other functions are
                called in the scheduler's thread: what takes long there delays all clips.

        Returns:
            The transcription to come. `cancel` works until it is there, also while the clip is decoded.

        Raises:
            QueueFull: `max_waiting` clips are waiting.
            SchedulerClosed: The scheduler is closed.
            AudioError: The clip cannot be transcribed.
            GenerationError: The settings are wrong.
        """
        begin = time.perf_counter()
        if isinstance(priority, bool) or not isinstance(priority, int | float) or not abs(priority) < float("inf"):
            raise GenerationError(f"priority is {shown(priority)}, it must be a number")
        with self._changed:
            self._check_open()
            waiting = sum(not each.future.cancelled() for each in self._waiting)
            if waiting + self._loading >= self._max_waiting:
                raise QueueFull(
                    f"{self._max_waiting} clips are waiting already; submit this one later, or set max_waiting higher"
                )
            self._loading += 1
        try:
            options, config = self._check(keywords)
            samples = self._load(audio, sampling_rate, limits=limits)
            of_prompt = {name: keywords[name] for name in OF_PROMPTS if name in keywords}  # type: ignore[literal-required]
            clip = SubmittedClip(samples, options, config, of_prompt, Deadline(config.max_time, options.cancel, begin))
        finally:
            with self._changed:
                self._loading -= 1
        future: Future[Transcription] = Future()
        with self._changed:
            self._check_open()
            turn = begin - PRIORITY_SECONDS * priority
            heapq.heappush(self._waiting, _Waiting(turn, next(self._numbers), clip, future))
            self._count(submitted=1)
            self._changed.notify()
        return future

    def stream(self, audio: Audio, **keywords: Any) -> TextStream:
        """Return the text of a clip, in whole words, as soon as it is decided; arguments are those of `submit`.

        A reader that stops early cancels the clip, and one that is slow delays nobody.

        Raises:
            QueueFull: As in `submit`, and the other errors there.
        """
        pieces: SimpleQueue[str | None] = SimpleQueue()
        future = self.submit(audio, stream=pieces.put, **keywords)
        future.add_done_callback(lambda _: pieces.put(None))
        return TextStream(future, pieces)

    def stats(self) -> SchedulerStats:
        """Return what the scheduler is doing."""
        with self._changed:
            rows = sum(utterance.beams for utterance in self._running)
            steps = sum(session.steps for session in self._sessions.values())
            return replace(self._stats, running=len(self._running), waiting=len(self._waiting), rows=rows, steps=steps)

    def close(self, *, cancel: bool = False) -> None:
        """Take no more clips, and wait until those that were taken are done; or cancel them."""
        with self._changed:
            self._closed = True
            futures = [each.future for each in self._waiting] + [each.future for each in self._running.values()]
            self._changed.notify()
        if cancel:
            for future in futures:
                future.cancel()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(cancel=kind is not None)

    def _check_open(self) -> None:
        if self._closed:
            raise SchedulerClosed("the scheduler is closed; make another one with model.scheduler()")

    def _count(self, **more: float) -> None:
        with self._changed:
            sums = {name: getattr(self._stats, name) + number for name, number in more.items()}
            self._stats = replace(self._stats, **sums)

    def _work(self) -> None:
        """Admit, step and answer, until the scheduler is closed and nothing is left."""
        while True:
            with self._changed:
                while not self._waiting and not self._running and not self._closed:
                    self._changed.wait()
                if not self._waiting and not self._running:
                    return
                chosen = self._next()
            if chosen is not None:
                self._admit(chosen)
            self._evict_cancelled()
            for session in list(self._sessions.values()):
                self._step(session)

    def _next(self) -> _Waiting | None:
        """Return the next clip to admit, if there is a place for it."""
        while self._waiting and self._waiting[0].future.cancelled():
            self._confirm_cancelled(heapq.heappop(self._waiting).future)
        if not self._waiting or len(self._running) >= self._max_utterances:
            return None
        session = self._sessions.get(rows_per_utterance(self._waiting[0].clip.config))
        return heapq.heappop(self._waiting) if session is None or session.takes_more else None

    def _admit(self, chosen: _Waiting) -> None:
        begin, utterance = time.perf_counter(), None
        try:
            if chosen.clip.deadline.passed():
                raise GenerationError("the clip had no time left when its turn came; allow more with max_time")
            clip = self._prepare(chosen.clip)
            utterance = clip.utterance
            session = self._sessions.setdefault(utterance.beams, DecodeSession(self._max_utterances))
            while session.running and not session.takes(clip.decoder):
                self._step(session)
            with self._changed:
                self._running[utterance] = _Running(clip, chosen.future, begin)
            ended = session.admit([utterance], clip.decoder)
        except BaseException as error:
            with self._changed:
                self._running.pop(utterance, None)  # type: ignore[arg-type]
            self._fail(chosen.future, error)
        else:
            self._answer(ended)

    def _evict_cancelled(self) -> None:
        for utterance, running in list(self._running.items()):
            if running.future.cancelled():
                self._sessions[utterance.beams].evict(utterance)
                with self._changed:
                    del self._running[utterance]
                    self._confirm_cancelled(running.future)

    def _step(self, session: DecodeSession) -> None:
        try:
            ended = session.step()
        except BaseException as error:
            failed = session.running
            logger.warning("a step of %d clips has failed: %s", len(failed), error)
            session.clear()
            for utterance in failed:
                with self._changed:
                    running = self._running.pop(utterance)
                self._fail(running.future, error)
        else:
            self._answer(ended)

    def _answer(self, ended: list[Utterance]) -> None:
        """Hand over the results of utterances that have ended."""
        for utterance in ended:
            with self._changed:
                running = self._running.pop(utterance)
            try:
                if utterance.error is not None:
                    raise utterance.error
                found = running.clip.transcription(time.perf_counter() - running.begin)
            except BaseException as error:
                self._fail(running.future, error)
                continue
            if running.future.set_running_or_notify_cancel():
                with self._changed:
                    new_tokens = len(found.tokens) - len(utterance.prompt)
                    self._count(finished=1, tokens=new_tokens, audio_seconds=running.clip.audio_seconds)
                running.future.set_result(found)
            else:
                self._count(cancelled=1)

    def _fail(self, future: "Future[Transcription]", error: BaseException) -> None:
        if future.set_running_or_notify_cancel():
            self._count(failed=1)
            future.set_exception(error)
        else:
            self._count(cancelled=1)

    def _confirm_cancelled(self, future: "Future[Transcription]") -> None:
        future.set_running_or_notify_cancel()  # Wakes those that wait for several.
        self._count(cancelled=1)
