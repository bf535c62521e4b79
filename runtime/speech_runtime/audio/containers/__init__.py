"""What containers say about the size of their audio: libsndfile reads a part of a file and does not tell."""

from .damage import CONVERT, DamagedError, Extent
from .extent import extent_of

__all__ = ["CONVERT", "DamagedError", "Extent", "extent_of"]
