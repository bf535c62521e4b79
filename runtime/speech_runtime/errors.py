"""Errors of the runtime: each names the thing, its value and the remedy."""


class SpeechError(Exception):
    """Base of all errors that speech-export raises on purpose."""


class BundleError(SpeechError, ValueError):
    """A bundle is missing, damaged or of another format. Lists every problem found."""


class AudioError(SpeechError, ValueError):
    """Audio that cannot be transcribed: unreadable, empty, not finite, too short, of another shape or dtype."""


class GenerationError(SpeechError, ValueError):
    """Generation settings that are unknown, contradictory or beyond the model's limits."""


class EngineError(SpeechError, RuntimeError):
    """A graph cannot be run: a library or execution provider is missing, session options contradict, or it failed."""


class EngineMemoryError(EngineError):
    """A graph needs more memory than this process, or the device, has left. The backend remains usable."""


class BenchError(SpeechError, ValueError):
    """A benchmark that cannot be run: options out of range, cases beyond a model, or a process that was killed."""
