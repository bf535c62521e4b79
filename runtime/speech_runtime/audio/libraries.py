"""Libraries of the extra `audio`, imported when audio is read."""

from importlib import import_module
from typing import Any

from ..errors import AudioError


def require(library: str) -> Any:
    """Import a library.

    Raises:
        AudioError: it is not installed.
    """
    try:
        return import_module(library)
    except ImportError as error:
        raise AudioError(f"{library} is needed here: pip install 'speech-export[audio]'") from error
