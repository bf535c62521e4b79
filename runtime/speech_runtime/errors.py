"""Errors of the runtime. Each message names the thing, its value and the remedy."""

import queue


class SpeechError(Exception):
    """Base class of all errors that speech-export raises on purpose."""


class BundleError(SpeechError, ValueError):
    """A bundle is missing, damaged or has another format. The message lists every problem."""


class AudioError(SpeechError, ValueError):
    """Audio cannot be transcribed: it is unreadable, empty, not finite, too short, or has another shape or dtype."""


class GenerationError(SpeechError, ValueError):
    """Generation settings are unknown, contradictory or beyond the model's limits."""


class EngineError(SpeechError, RuntimeError):
    """A graph cannot be run: a library or provider is missing, options contradict each other, or it failed."""


class EngineMemoryError(EngineError):
    """A graph needs more memory than the process or the device has left. The model can still be used."""


class QueueFull(SpeechError, queue.Full):  # noqa: N818 - as `queue.Full`
    """As many clips as may wait are waiting. The scheduler takes others once some of them have been admitted."""


class SchedulerClosed(SpeechError, RuntimeError):  # noqa: N818 - a state, as `queue.ShutDown`
    """The scheduler takes no more clips."""


class BenchError(SpeechError, ValueError):
    """A benchmark cannot be run: options are out of range, cases are beyond a model, or a process was killed."""
