"""Numbers of the command line: ASCII digits, and not all that Python takes, as 1_0 or digits of other scripts."""

import re
from typing import Any

import click

_INTEGER = re.compile(r"[+-]?[0-9]{1,40}")
"""No setting has as many digits."""


def is_plain_integer(text: str) -> bool:
    """Whether a text is an integer in ASCII digits."""
    return _INTEGER.fullmatch(text) is not None


class _Integer(click.types.IntParamType):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        _check(self, value, param, ctx)
        return super().convert(value, param, ctx)


class PlainRange(click.IntRange):
    """A range of integers."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse what is no number in ASCII digits, or out of range."""
        _check(self, value, param, ctx)
        return super().convert(value, param, ctx)


class _Number(click.types.FloatParamType):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and (not value.isascii() or "_" in value):
            self.fail(f"{value[:80]!r} is not a number; write it in the digits 0 to 9", param, ctx)
        return super().convert(value, param, ctx)


WHOLE_NUMBER = _Integer()
NUMBER = _Number()


def _check(
    kind: click.types.IntParamType, value: Any, param: click.Parameter | None, ctx: click.Context | None
) -> None:
    if isinstance(value, str) and not is_plain_integer(value.strip()):
        kind.fail(f"{value[:80]!r} is not an integer; write it in the digits 0 to 9", param, ctx)
