"""The text of a scheduled clip, for the thread that reads it."""

from collections.abc import Iterator
from concurrent.futures import Future
from queue import SimpleQueue

from .results import Transcription


class TextStream(Iterator[str]):
    """The text of a clip as it is decided. Closing it, or dropping it, cancels the clip."""

    def __init__(self, future: "Future[Transcription]", pieces: "SimpleQueue[str | None]") -> None:
        """Read `pieces`, whose end is None, until `future` is done."""
        self._future, self._pieces = future, pieces

    def __next__(self) -> str:
        """Return the next words.

        Raises:
            Exception: That of the clip, if it has failed.
        """
        piece = self._pieces.get()
        if piece is not None:
            return piece
        self._pieces.put(None)  # for the next call
        if not self._future.cancelled():
            self._future.result()
        raise StopIteration

    def close(self) -> None:
        """Cancel the clip, unless its text is complete."""
        self._future.cancel()

    def __del__(self) -> None:
        self.close()
