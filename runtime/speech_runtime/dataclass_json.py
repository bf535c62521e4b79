"""Frozen dataclasses from JSON, strictly: unknown, missing and wrongly typed fields are all listed, none ignored."""

import reprlib
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass, replace
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Record = TypeVar("Record")

_SHOWN_PROBLEMS = 20
_LONGEST_INTEGER = 63
"""Bits of an integer: what a C library takes, and a list is never longer than."""
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 120

shown = _SHORT.repr
"""`repr` for messages: short, and of a value of any size and depth."""


def listed(problems: Sequence[str]) -> str:
    """The first of what may be thousands of problems, for a message."""
    more = len(problems) - _SHOWN_PROBLEMS
    return "; ".join(problems[:_SHOWN_PROBLEMS]) + (f"; and {more:,} more" if more > 0 else "")


class FieldError(ValueError):
    """All that is wrong with a record; `problems` has one line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(listed(problems))
        self.problems = problems


def from_json(record: type[Record], value: object, where: str = "") -> Record:
    """Build the dataclass `record` from parsed JSON.

    Args:
        record: a dataclass of ints, floats, strings, booleans, literals, tuples, dictionaries and other dataclasses.
        value: what `json.loads` returned.
        where: what to call the value in problems.

    Raises:
        FieldError: the value does not fit; every problem is listed.
    """
    problems: list[str] = []
    built = _convert(record, value, where, problems)
    if problems:
        raise FieldError(problems)
    result: Record = built
    return result


def updated(record: Record, given: Mapping[str, Any]) -> Record:
    """A copy of the dataclass `record` with the parsed JSON of some fields in place of what they are.

    Raises:
        FieldError: see `from_json`.
    """
    problems: list[str] = []
    arguments = _arguments(type(record), given, "", problems)
    if problems:
        raise FieldError(problems)
    return replace(record, **arguments)  # type: ignore[type-var]


def _convert(kind: Any, value: Any, where: str, problems: list[str]) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _convert_record(kind, value, where, problems)
    if origin in (Union, types.UnionType):
        return _convert_union(arguments, value, where, problems)
    if origin is tuple and isinstance(value, (list, tuple)) and _fits(arguments, value):
        kinds = arguments[:1] * len(value) if arguments[-1] is ... else arguments
        pairs = enumerate(zip(kinds, value, strict=True))
        return tuple(_convert(kind, item, f"{where}[{i}]", problems) for i, (kind, item) in pairs)
    if origin is dict and isinstance(value, Mapping):
        return {key: _convert(arguments[1], item, f"{where}[{key[:120]!r}]", problems) for key, item in value.items()}
    if origin is Literal and isinstance(value, str | int | float) and value in arguments:
        return value
    if kind in (int, float) and type(value) is int and value.bit_length() > _LONGEST_INTEGER:
        problems.append(f"{where or 'the value'} is {shown(value)}, which is too large")
        return None
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if kind in (int, str, bool, type(None)) and type(value) is kind:
        return value
    problems.append(f"{where or 'the value'} is {shown(value)}, expected {_describe(kind)}")
    return None


def _fits(kinds: tuple[Any, ...], value: Sequence[Any]) -> bool:
    """Whether a tuple has as many items as its type says; `tuple[int, ...]` may have any number."""
    return kinds[-1] is ... or len(kinds) == len(value)


def _convert_union(kinds: tuple[Any, ...], value: Any, where: str, problems: list[str]) -> Any:
    attempts = []
    for kind in kinds:
        found: list[str] = []
        converted = _convert(kind, value, where, found)
        if not found:
            return converted
        attempts.append((kind, found))
    records = [found for kind, found in attempts if is_dataclass(kind) and value is not None]
    expected = " or ".join(_describe(kind) for kind in kinds)
    problems.extend(records[0] if records else [f"{where or 'the value'} is {shown(value)}, expected {expected}"])
    return None


def _convert_record(record: Any, value: Any, where: str, problems: list[str]) -> Any:
    if not isinstance(value, Mapping):
        problems.append(f"{where or 'the value'} is {shown(value)}, expected an object")
        return None
    arguments = _arguments(record, value, where, problems)
    problems.extend(
        f"{where and where + '.'}{field.name} is missing"
        for field in fields(record)
        if field.name not in value and field.default is MISSING and field.default_factory is MISSING
    )
    return None if problems else record(**arguments)


def _arguments(record: Any, value: Mapping[str, Any], where: str, problems: list[str]) -> dict[str, Any]:
    """The fields of `record` that `value` has."""
    hints, prefix = _type_hints(record), f"{where}." if where else ""
    problems.extend(f"{prefix}{name[:120]} is not a known field" for name in value if name not in hints)
    return {name: _convert(hints[name], value[name], f"{prefix}{name}", problems) for name in value if name in hints}


_type_hints = cache(get_type_hints)


def _describe(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(repr(option) for option in get_args(kind))
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        return f"a list of {_describe(kinds[0])}" if kinds[-1] is ... else f"[{', '.join(map(_describe, kinds))}]"
    return "null" if kind is type(None) else str(getattr(kind, "__name__", kind))
