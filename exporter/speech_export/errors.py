"""Errors of the exporter: each names the thing, its value and the remedy."""

from speech_runtime.errors import SpeechError


class ExportError(SpeechError, ValueError):
    """The model cannot be exported as asked."""


class VerificationError(ExportError):
    """The exported graphs do not say what the torch model says."""


def shortened(names: list[str], shown: int = 3) -> str:
    """The first few of what may be hundreds of names, for a message."""
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def reason(error: BaseException, most: int = 400) -> str:
    """What an error of a library says, on one line of about `most` characters.

    Its first line alone is often a heading or the text of a module, and the cause comes after it, perhaps at the end.
    """
    words = " ".join(str(error).split())
    if not words or isinstance(error, (LookupError, AttributeError, TypeError)):  # "'gelu'" alone says nothing
        words = f"{type(error).__name__}: {words}".removesuffix(": ")
    if len(words) <= most:
        return words
    return f"{words[: most // 2].rpartition(' ')[0]} … {words[-most // 2 :].partition(' ')[2]}"
