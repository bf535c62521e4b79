"""Sources of audio: files, pipes, open files and bytes, each opened once."""

import io
import os
import select
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeGuard

from ..errors import AudioError
from ..paths import expanded
from .limits import AudioLimits, flag

AudioFile = str | os.PathLike[str] | BinaryIO | bytes | bytearray | memoryview
"""A path, an open file, or the bytes of a file."""

_AT_ONCE = 2**20
"""Number of bytes to read at a time."""

_NAP = 0.01
"""Seconds to sleep before a file without new data is read again."""

_LONGEST_POLL = 2**31 - 1
"""Longest time that `poll` can wait: milliseconds, about 25 days."""


def is_file(audio: object) -> TypeGuard[AudioFile]:
    """Return whether `audio` is a file in any form, not samples."""
    return isinstance(audio, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(audio, "read")


def file_name(file: AudioFile) -> str:
    """Return the name of a file for errors."""
    if isinstance(file, (bytes, bytearray, memoryview)):
        return "the bytes"
    if isinstance(file, (str, os.PathLike)):
        return os.fsdecode(expanded(file)) or "''"
    return str(getattr(file, "name", "the open file"))


@dataclass(frozen=True)
class Source:
    """An audio file that can be read at any position.

    Attributes:
        name: Name in errors.
        size: Size in bytes.
        content: Descriptor of a regular file, or the bytes of any other source.
    """

    name: str
    size: int
    content: int | bytes

    def read_at(self, position: int, count: int) -> bytes:
        """Return `count` bytes from `position` on, fewer at the end of the file."""
        if isinstance(self.content, bytes):
            return self.content[position : position + count]
        return os.pread(self.content, count, position)


class SourceReader(io.RawIOBase):
    """A file object that reads a source, with some bytes replaced."""

    def __init__(self, source: Source, replaced: tuple[int, bytes] | None = None) -> None:
        self._source, self._position = source, 0
        self._begin, self._bytes = replaced or (0, b"")

    def readinto(self, buffer: Any) -> int:
        """Read bytes into `buffer`, and return their number, which is smaller than its size at the end of the file."""
        content = bytearray(self._source.read_at(self._position, len(buffer)))
        for i, byte in enumerate(self._bytes, start=self._begin - self._position):
            if 0 <= i < len(content):
                content[i] = byte
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position and return it."""
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._source.size}[whence]
        return self._position

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True


@contextmanager
def open_source(file: AudioFile, limits: AudioLimits) -> Iterator[Source]:
    """Open an audio file; anything but a regular file is read into memory.

    Raises:
        AudioError: It exceeds `limits`, was opened as text, or changed while it was read.
        OSError: It cannot be opened or read.
    """
    name = file_name(file)
    if isinstance(file, (str, os.PathLike)):
        # Without O_NONBLOCK, opening a pipe without a writer would block forever.
        with open(expanded(file), "rb", buffering=0, opener=_without_waiting) as raw:
            found = os.fstat(raw.fileno())
            if stat.S_ISREG(found.st_mode):
                yield Source(name, found.st_size, raw.fileno())
                _check_unchanged(found, os.fstat(raw.fileno()), name)
                return
            content = _read_all(lambda count: _read_pipe(raw.fileno(), count, limits, name), limits, name)
    elif isinstance(file, (bytes, bytearray, memoryview)):
        content = bytes(file)
        limits.check_bytes(len(content), name)
    elif isinstance(file, io.TextIOBase):
        raise AudioError(f"{name}: is open as text; open it with 'rb'")
    else:
        if callable(seekable := getattr(file, "seekable", None)) and seekable():
            file.seek(0)
        content = _read_all(_reader(file, limits, name), limits, name)
    yield Source(name, len(content), content)


def is_regular(file: AudioFile) -> bool:
    """Return whether `file` is the path of a regular file; other sources may be readable only once."""
    try:
        return isinstance(file, (str, os.PathLike)) and stat.S_ISREG(os.stat(expanded(file)).st_mode)  # noqa: PTH116
    except (OSError, ValueError):
        return False


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _check_unchanged(before: os.stat_result, after: os.stat_result, name: str) -> None:
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        sizes = f"it had {before.st_size:,} bytes, and now has {after.st_size:,}"
        raise AudioError(f"{name}: changed while it was read: {sizes}; transcribe it when it is complete")


def _reader(file: BinaryIO, limits: AudioLimits, name: str) -> Callable[[int], bytes | None]:
    """Return a function that reads an open file; for a pipe, it waits no longer than `limits` allow."""
    if not isinstance(getattr(file, "raw", file), io.FileIO):
        return file.read
    # `read1` returns the available bytes; `read` would wait for all that were requested.
    read, descriptor = getattr(file, "read1", file.read), file.fileno()

    def wait_and_read(count: int) -> bytes | None:
        _wait(descriptor, limits, name)
        block: bytes | None = read(count)
        return block

    return wait_and_read


def _read_all(read: Callable[[int], bytes | None], limits: AudioLimits, name: str) -> bytes:
    content, last = io.BytesIO(), time.monotonic()
    while True:
        block = read(_AT_ONCE)
        if block is None:  # a non-blocking file has no data yet; this is not the end
            if time.monotonic() - last > limits.max_wait:
                raise _nothing_came(limits, name)
            time.sleep(_NAP)
            continue
        if not isinstance(block, (bytes, bytearray, memoryview)):
            raise AudioError(f"{name}: gives {type(block).__name__} instead of bytes; open it with 'rb'")
        if not block:
            return content.getvalue()
        content.write(block)
        limits.check_bytes(content.tell(), name)
        last = time.monotonic()


def _read_pipe(descriptor: int, count: int, limits: AudioLimits, name: str) -> bytes:
    _wait(descriptor, limits, name)
    return os.read(descriptor, count)


def _wait(descriptor: int, limits: AudioLimits, name: str) -> None:
    """Wait until bytes arrive or the pipe is closed.

    Raises:
        AudioError: Neither happens within the time that `limits` allow.
    """
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    if not waiting.poll(min(limits.max_wait * 1000, _LONGEST_POLL)):
        raise _nothing_came(limits, name)


def _nothing_came(limits: AudioLimits, name: str) -> AudioError:
    return AudioError(
        f"{name}: this pipe delivered no data for {limits.max_wait:,g} s; "
        f"start the program that writes to it, or raise {flag('max_wait')}"
    )
