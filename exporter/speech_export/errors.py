"""Errors of the exporter: each names the thing, its value and the remedy."""

from speech_runtime.errors import SpeechError


class ExportError(SpeechError, ValueError):
    """The model cannot be exported with the given options."""


class VerificationError(ExportError):
    """The output of the exported graphs differs from the torch model's."""


def shortened(names: list[str], shown: int = 3) -> str:
    """Join the first few of many names, for a message."""
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def reason(error: BaseException, most: int = 400) -> str:
    """Return the message of a library's error on one line of about `most` characters.

    The first line alone is often a heading, or the repr of a module; the cause comes after it, perhaps at the end.
    """
    words = " ".join(str(error).split())
    if not words or isinstance(error, (LookupError, AttributeError, TypeError)):  # "'gelu'" alone explains nothing.
        words = f"{type(error).__name__}: {words}".removesuffix(": ")
    if len(words) <= most:
        return words
    return f"{words[: most // 2].rpartition(' ')[0]} … {words[-most // 2 :].partition(' ')[2]}"
