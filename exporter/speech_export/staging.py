"""A directory that appears all at once, or not at all."""

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from speech_runtime.bundle import MANIFEST

from .errors import ExportError


@contextmanager
def staged(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield an empty directory beside `target` that becomes `target` when the block ends.

    When the block raises, whatever it is (Ctrl-C too), the staging directory is removed and `target` is as it was.

    Args:
        target: a directory that is not there yet; or a bundle or an empty directory, if `overwrite`.
        overwrite: replace what is there.

    Raises:
        ExportError: `target` is there already, is something else than a bundle, or cannot be written; the disk is full.
    """
    target = target.absolute()
    _check_target(target, overwrite)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    except OSError as error:
        raise ExportError(
            f"cannot write to {target.parent}: {error.strerror}; choose another output directory"
        ) from error
    try:
        with full_disk_named(target.parent):
            yield staging
            staging.chmod(0o755)
            _replace(target, staging)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def full_disk_named(directory: Path) -> Iterator[None]:
    """Within this context a full disk is an ExportError that names `directory`."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = shutil.disk_usage(directory).free
        raise ExportError(
            f"the disk of {directory} is full ({free / 2**20:,.0f} MiB free now); nothing was left there. "
            "Free some space, or choose another output directory"
        ) from error


def _check_target(target: Path, overwrite: bool) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise ExportError(f"{target} is a file; choose another output directory")
    if not overwrite:
        raise ExportError(f"{target} exists already; give --overwrite to replace it, or another output directory")
    if not (target / MANIFEST).exists() and any(target.iterdir()):
        raise ExportError(f"{target} is not a bundle, and is not replaced even with --overwrite; choose another one")


def _replace(target: Path, staging: Path) -> None:
    """Put `staging` in the place of `target`; when that fails, put back what was there."""
    if not target.exists():
        staging.rename(target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
    target.rename(aside / target.name)
    try:
        staging.rename(target)
    except BaseException:
        (aside / target.name).rename(target)
        aside.rmdir()
        raise
    shutil.rmtree(aside, ignore_errors=True)
