"""Publishes a bundle all at once or not at all, and replaces nothing but a bundle.

`--overwrite` replaces a bundle or an empty directory. If the directory has any other files, nothing is replaced. A link
is followed: the directory that it leads to is replaced, and the link stays. All of this is checked before the export,
and again when the new bundle takes its place.
"""

import errno
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from speech_runtime.atomic.writing import PARTIAL, publish, staging_directory
from speech_runtime.bundle.graph_io import GRAPHS
from speech_runtime.bundle.manifest import ENGINES, GENERATION_CONFIG, MANIFEST, PREPROCESSOR_CONFIG, TOKENIZER
from speech_runtime.bundle.safe_files import read_json

from ..errors import ExportError, shortened

_FILES = frozenset(
    {MANIFEST, GENERATION_CONFIG, PREPROCESSOR_CONFIG, TOKENIZER, "config.json", "tokenizer_config.json"}
    | {f"{graph}.onnx{end}" for graph in GRAPHS for end in ("", ".data")}
)
"""Files of every bundle, even one with a damaged manifest."""
ENGINES_DIRECTORY = re.compile("(tensorrt|tensorrt_rtx)-[0-9a-f]{8}")
"""Name of the directory of one set of engines, within `engines`."""
_OF_ENGINES = re.compile(rf"{ENGINES}/{ENGINES_DIRECTORY.pattern}/({'|'.join(GRAPHS)})\.engine")
HALF_WRITTEN = re.compile(rf"\.{re.escape(MANIFEST)}(\.[0-9a-f]{{8}})?{re.escape(PARTIAL)}")
"""Name of a manifest whose writer was killed."""


@contextmanager
def staged(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield an empty directory beside `target` that becomes `target` when the block ends.

    If the block raises anything (Ctrl-C included), the staging directory is removed and `target` stays as it was. The
    next run removes what a killed run left behind.

    Args:
        target: Directory that does not exist yet; or a bundle or an empty directory, if `overwrite`.
        overwrite: If true, replace the existing directory.

    Raises:
        ExportError: `target` exists already, is not a bundle, or cannot be written; or the disk is full.
    """
    named = target.absolute()
    with _explained(named):
        target = _followed(named)
    with _explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with full_disk_named(target.parent), staging_directory(target) as staging:
            if os.path.lexists(target):
                _check_replaceable(target, overwrite)
            yield staging
            if _followed(named) != target:
                raise ExportError(
                    f"{named} leads to another directory now than when the export began, and that one is not replaced; "
                    "export the model again"
                )
            _publish(staging, target, overwrite)


def check_target(target: Path, *, overwrite: bool) -> None:
    """Check what `staged` checks when it begins; this needs none of the libraries of an export.

    Raises:
        ExportError: `target` exists already and is not to be replaced, or its parent cannot be written.
    """
    with _explained(target.absolute()):
        followed = _followed(target.absolute())
        if os.path.lexists(followed):
            _check_replaceable(followed, overwrite)
    _check_writable(followed)


@contextmanager
def full_disk_named(directory: Path) -> Iterator[None]:
    """Within this context, raise an ExportError that names `directory` if the disk is full."""
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


@contextmanager
def _explained(target: Path) -> Iterator[None]:
    """Within this context, raise an ExportError if `target` cannot be read or its parent cannot be written."""
    parent = target.parent
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise
        failed = Path(error.filename)
        if failed.parent != parent and failed not in (parent, *parent.parents):
            raise
        where = target if failed == target or error.errno == errno.ENAMETOOLONG else parent
        raise _cannot_write(where, error) from error


def _check_writable(target: Path) -> None:
    """Make a directory beside `target`, or in the nearest directory above that exists, and remove it.

    Only an attempt tells: permissions say nothing about root, a read-only file system or a quota.
    """
    directory = next(path for path in target.parents if os.path.lexists(path))
    try:
        with TemporaryDirectory(prefix=f".{target.name}.", suffix=PARTIAL, dir=directory):
            pass
    except OSError as error:
        raise _cannot_write(target if error.errno == errno.ENAMETOOLONG else directory, error) from error


def _cannot_write(where: Path, error: OSError) -> ExportError:
    return ExportError(f"cannot write to {where}: {error.strerror}; choose another output directory")


def _followed(target: Path) -> Path:
    """Return the directory that a link leads to; other paths as they are."""
    if not target.is_symlink():
        return target
    if not target.exists():
        raise ExportError(f"{target} is a link that leads nowhere; remove it, or choose another output directory")
    return target.resolve()


def _publish(staging: Path, target: Path, overwrite: bool) -> None:
    try:
        publish(staging, target, (lambda there: _check_replaceable(there, True, target)) if overwrite else None)
    except FileExistsError:
        _check_replaceable(target, overwrite)
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ExportError(
            f"the bundle cannot be put at {target}: {error.strerror}. Choose another "
            "output directory, for example one that is not a mount point"
        ) from error


def _check_replaceable(there: Path, overwrite: bool, target: Path | None = None) -> None:
    """Check that the directory `there`, that is or was `target`, may be replaced."""
    target = target or there
    if there.is_symlink() or not there.is_dir():
        raise ExportError(f"{target} is a file; choose another output directory")
    if not (there / MANIFEST).exists() and any(there.iterdir()):
        raise ExportError(f"{target} is not a bundle, and is not replaced even with --overwrite; choose another one")
    if foreign := _foreign_files(there):
        raise ExportError(
            f"{target} has files that do not belong to the bundle: {shortened(foreign)}; it is not replaced even with "
            "--overwrite. Move them elsewhere, or choose another output directory"
        )
    if not overwrite:
        raise ExportError(f"{target} exists already; give --overwrite to replace it, or another output directory")


def _foreign_files(bundle: Path) -> list[str]:
    """Return the files and links below a bundle that no export wrote."""
    known = _FILES | _files_in_manifest(bundle / MANIFEST)
    found = []
    for parent, directories, names in os.walk(bundle):
        links = [name for name in directories if Path(parent, name).is_symlink()]
        for path in (Path(parent, name).relative_to(bundle) for name in [*names, *links]):
            of_bundle = path.name in known or HALF_WRITTEN.fullmatch(path.name) if len(path.parts) == 1 else False
            if not of_bundle and not _OF_ENGINES.fullmatch(path.as_posix()):
                found.append(str(path))
    return sorted(found)


def _files_in_manifest(path: Path) -> set[str]:
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return set()
    files = content.get("files") if isinstance(content, dict) else None
    return set(files) if isinstance(files, Mapping) else set()
