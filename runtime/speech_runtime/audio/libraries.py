"""Imports of the libraries in the extra `audio`, made when audio is read."""

from importlib import import_module
from typing import Any

from ..errors import AudioError


def require(library: str) -> Any:
    """Import a library.

    Raises:
        AudioError: It is not installed, or cannot be imported.
    """
    try:
        return import_module(library)
    except ModuleNotFoundError as error:
        if error.name != library:
            raise _broken(library, error) from error
        raise AudioError(f"{library} is needed here: pip install 'speech-export[audio]'") from error
    except (ImportError, OSError, MemoryError) as error:  # a part of it is missing, or memory is exhausted
        raise _broken(library, error) from error


def _broken(library: str, error: Exception) -> AudioError:
    said = str(error) or type(error).__name__
    return AudioError(f"{library} is installed, but cannot be imported: {said}; fix that, or install it again")
