"""Numbers of the command line: ASCII digits, and not all that Python takes, as 1_0 or digits of other scripts."""

import re
from typing import Any

import click

_INTEGER = re.compile(r"[+-]?[0-9]{1,40}")
"""No setting has as many digits."""


def is_plain_integer(text: str) -> bool:
    """Whether a text is an integer in ASCII digits."""
    return _INTEGER.fullmatch(text) is not None


class _PlainDigits(click.types.IntParamType):
    """Refuses what is no number in ASCII digits, before any other check."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and not is_plain_integer(value.strip()):
            self.fail(f"{value[:80]!r} is not an integer; write it in the digits 0 to 9", param, ctx)
        return super().convert(value, param, ctx)


class PlainRange(_PlainDigits, click.IntRange):
    """A range of integers."""


class _Number(click.types.FloatParamType):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and (not value.isascii() or "_" in value):
            self.fail(f"{value[:80]!r} is not a number; write it in the digits 0 to 9", param, ctx)
        return super().convert(value, param, ctx)


WHOLE_NUMBER = _PlainDigits()
NUMBER = _Number()
