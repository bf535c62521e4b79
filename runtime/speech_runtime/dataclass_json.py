"""Frozen dataclasses whose fields are checked: against their types and rules, and when they are read from JSON.

A field declares in its type which values are allowed, and `problems` lists the fields of an instance that break it:

    @dataclass(frozen=True)
    class Options:
        beams: Annotated[int, between(1, 1024)] = 1
        threads: tuple[Annotated[int, at_least(0, "all cores")], ...] = (0,)

        def __post_init__(self) -> None:
            if found := problems(self):
                raise OptionsError(listed(found))  # "beams is 0; give 1 to 1,024; threads has -1; give 0 (all cores) …"
"""

import reprlib
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from functools import cache
from numbers import Real
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Record = TypeVar("Record")

_SHOWN_PROBLEMS = 20
_LONGEST_INTEGER = 63
"""Largest number of bits of an integer: C libraries take no more, and no list is longer."""
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 120

shown = _SHORT.repr
"""`repr` for messages: short, whatever the size and depth of the value."""


def listed(problems: Sequence[str]) -> str:
    """Join problems for a message; of thousands, only the first are named."""
    more = len(problems) - _SHOWN_PROBLEMS
    return "; ".join(problems[:_SHOWN_PROBLEMS]) + (f"; and {more:,} more" if more > 0 else "")


class FieldError(ValueError):
    """JSON that does not fit a dataclass; `problems` has one line for each problem."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(listed(problems))
        self.problems = problems


@dataclass(frozen=True)
class Rule:
    """A condition on the values of a field, in the field's type: `Annotated[int, Rule(is_even, "an even number")]`.

    Attributes:
        holds: Function that returns true for allowed values; it is called with values of the annotated type only.
        words: Description of the values that are allowed, to follow "give" in the error.
    """

    holds: Callable[[Any], bool]
    words: str


def between(least: float, most: float, note: str = "") -> Rule:
    """Allow `least` to `most`; `note` explains `least` in the error."""
    return Rule(lambda value: least <= value <= most, f"{_noted(least, note)} to {most:,}")


def at_least(least: float, note: str = "") -> Rule:
    """Allow `least` and more; `note` explains `least` in the error."""
    return Rule(lambda value: value >= least, f"{_noted(least, note)} or more")


def above(bound: float) -> Rule:
    """Allow numbers above `bound`."""
    return Rule(lambda value: value > bound, f"a number above {bound:,}")


def problems(instance: Any) -> list[str]:
    """List the fields of a dataclass instance whose value is not of the field's type or breaks a rule in it."""
    return [
        problem
        for name, kind, accepts in _checks(instance.__class__)
        if not accepts(value := getattr(instance, name))
        for problem in _field_problems(name, kind, value)
    ]


@cache
def _checks(record: Any) -> tuple[tuple[str, Any, Callable[[Any], bool]], ...]:
    hints = get_type_hints(record, include_extras=True)
    return tuple((field.name, hints[field.name], _acceptor(hints[field.name])) for field in fields(record))


def _field_problems(name: str, kind: Any, value: Any) -> list[str]:
    listed_kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if get_origin(listed_kind) is tuple and get_args(listed_kind)[-1] is ... and isinstance(value, tuple):
        item_kind = get_args(listed_kind)[0]
        items = [item for item in value if not _acceptor(item_kind)(item)]
        if items:
            return [f"{name} has {shown(item)}; give {allowed_values(item_kind)}" for item in items]
    return [f"{name} is {shown(value)}; give {allowed_values(kind)}"]


@cache
def _acceptor(kind: Any) -> Callable[[Any], bool]:
    """Return a function that returns true for Python values of the type `kind` that keep the rules in it."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        of_type, rules = _acceptor(arguments[0]), [rule for rule in arguments[1:] if isinstance(rule, Rule)]
        return lambda value: of_type(value) and all(rule.holds(value) for rule in rules)
    if origin in (Union, types.UnionType):
        members = [_acceptor(argument) for argument in arguments]
        return lambda value: any(accepts(value) for accepts in members)
    if origin is Literal:
        return lambda value: any(isinstance(value, type(option)) and value == option for option in arguments)
    if origin is tuple and arguments[-1] is ...:
        item = _acceptor(arguments[0])
        return lambda value: isinstance(value, tuple) and all(map(item, value))
    if origin is tuple:
        items = [_acceptor(argument) for argument in arguments]
        return lambda value: (
            isinstance(value, tuple)
            and len(value) == len(items)
            and all(accepts(part) for accepts, part in zip(items, value, strict=True))
        )
    if origin is not None and issubclass(origin, Mapping):
        key, item = map(_acceptor, arguments)
        return lambda value: isinstance(value, Mapping) and all(map(key, value)) and all(map(item, value.values()))
    if kind in (int, float):
        numbers = int if kind is int else Real
        return lambda value: isinstance(value, numbers) and not isinstance(value, bool)
    return lambda value: isinstance(value, kind)


_WORDS: dict[Any, str] = {
    bool: "True or False",
    int: "an integer",
    float: "a number",
    str: "a string",
    Path: "a path",
    type(None): "None",
    tuple: "a tuple",
    Mapping: "a dictionary",
}


def allowed_values(kind: Any) -> str:
    """Return a description of the values to give for a field of the type `kind`."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        rules = [rule.words for rule in arguments[1:] if isinstance(rule, Rule)]
        return " and ".join(rules) or allowed_values(arguments[0])
    if origin in (Union, types.UnionType):
        return ", or ".join(map(allowed_values, arguments))
    if origin is Literal:
        options = list(map(repr, arguments))
        return f"one of {', '.join(options)}" if len(options) > 2 else " or ".join(options)
    if origin is tuple and arguments[-1] is ...:
        return f"a tuple; each item: {allowed_values(arguments[0])}"
    return _WORDS.get(origin or kind) or str(getattr(kind, "__name__", kind))


def _noted(number: float, note: str) -> str:
    return f"{number:,} ({note})" if note else f"{number:,}"


def from_json(record: type[Record], value: object, where: str = "") -> Record:
    """Build the dataclass `record` from parsed JSON.

    Args:
        record: Dataclass of ints, floats, strings, booleans, literals, tuples, dictionaries and other dataclasses.
        value: Parsed JSON, as `json.loads` returns it.
        where: Name of the value in problems.

    Raises:
        FieldError: Fields are unknown, missing or of another type; all of them are listed.
    """
    problems: list[str] = []
    built = _convert(record, value, where, problems)
    if problems:
        raise FieldError(problems)
    result: Record = built
    return result


def updated(record: Record, given: Mapping[str, Any]) -> Record:
    """Return a copy of the dataclass instance `record` with other values of some fields, given as parsed JSON.

    Raises:
        FieldError: Fields are unknown or of another type; all of them are listed.
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
    """Return true if a list has the length of a tuple type; `tuple[int, ...]` has any length."""
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
    """Convert the fields of `record` that `value` has."""
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
