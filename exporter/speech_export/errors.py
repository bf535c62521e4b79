"""Errors of the exporter: each names the thing, its value and the remedy."""

from speech_runtime.errors import SpeechError


class ExportError(SpeechError, ValueError):
    """The model cannot be exported as asked."""


class VerificationError(ExportError):
    """The exported graphs do not say what the torch model says."""
