"""Checks that a container's audio is complete: libsndfile silently reads a part of a damaged file."""

from .detect import extent_of
from .extent import CONVERT, DamagedError, Extent

__all__ = ["CONVERT", "DamagedError", "Extent", "extent_of"]
