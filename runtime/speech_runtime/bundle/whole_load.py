"""Loading all of one bundle: never half of it and half of the one that replaces it meanwhile."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ..errors import BundleError, SpeechError
from .manifest import Bundle, pinned_bundle

Loaded = TypeVar("Loaded")

_TRIES = 10


def load_whole(directory: str | Path, load: Callable[[Bundle], Loaded], *, check_hashes: bool = True) -> Loaded:
    """What `load` makes of the bundle in `directory`.

    The directory is held open and its files are read through it; where one of them changed before `load` returned, it
    is loaded again.

    Args:
        directory: of the bundle.
        load: reads the files of the checked bundle that it is given, and keeps none of their paths.
        check_hashes: see `Bundle.open`.

    Raises:
        BundleError: there is no bundle, it is damaged, or it is replaced again and again.
        SpeechError: what `load` raises; paths in it are those of `directory`.
    """
    directory = Path(directory)
    for _ in range(_TRIES):
        with pinned_bundle(directory) as pin:
            try:
                loaded = load(Bundle.of_pinned(directory, pin, check_hashes=check_hashes))
            except SpeechError as error:
                if pin.unchanged():
                    raise _named(error, pin.path, directory) from error.__cause__
                continue
            except Exception:
                if pin.unchanged():
                    raise
                continue
            if pin.unchanged():
                return loaded
    raise BundleError(
        f"the bundle {directory} was replaced {_TRIES} times while it was loaded; try again when nobody writes to it"
    )


def _named(error: SpeechError, through: Path, directory: Path) -> SpeechError:
    """The error with the name that the directory was given, in place of the path that its files were read through."""
    return type(error)(str(error).replace(str(through), str(directory)))
