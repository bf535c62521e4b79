"""Test dataclasses read from JSON: one error lists every field that breaks its type or its rules."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from speech_runtime.dataclass_json import FieldError, Rule, above, at_least, between, from_json, problems


@dataclass(frozen=True)
class Inner:
    size: int


@dataclass(frozen=True)
class Outer:
    name: str
    kind: Literal["a", "b"]
    sizes: tuple[int, ...]
    inner: dict[str, Inner]
    ratio: float | None = None


VALID: dict[str, Any] = {"name": "x", "kind": "a", "sizes": [1, 2], "inner": {"k": {"size": 3}}, "ratio": 1}


def test_a_valid_record_is_built() -> None:
    assert from_json(Outer, VALID) == Outer("x", "a", (1, 2), {"k": Inner(3)}, 1.0)


def test_every_problem_is_listed() -> None:
    wrong = {"kind": "c", "sizes": [1, "2"], "inner": {"k": {"size": True, "extra": 0}}, "other": 1}
    with pytest.raises(FieldError) as error:
        from_json(Outer, wrong)
    assert sorted(error.value.problems) == [
        "inner['k'].extra is not a known field",
        "inner['k'].size is True, expected int",
        "kind is 'c', expected 'a' or 'b'",
        "name is missing",
        "other is not a known field",
        "sizes[1] is '2', expected int",
    ]


@pytest.mark.parametrize("value", [None, 3, [], "text"])
def test_what_is_no_object_is_refused(value: object) -> None:
    with pytest.raises(FieldError, match="expected an object"):
        from_json(Outer, value)


@dataclass(frozen=True)
class Options:
    beams: Annotated[int, between(1, 1024)] = 1
    threads: tuple[Annotated[int, at_least(0, "all cores")], ...] = (0,)
    seconds: Annotated[float, above(0)] | None = None
    pair: Annotated[tuple[int, int], Rule(lambda pair: pair[0] <= pair[1], "two integers that grow")] = (1, 2)
    mode: Literal["fast", "exact"] = "fast"
    stop: bool | Literal["never"] = False
    cache: str | Path | None = None
    extras: Mapping[str, int] | None = None


def test_values_within_the_rules_have_no_problem() -> None:
    assert problems(Options()) == []
    assert problems(Options(1024, (), 0.5, (2, 2), "exact", "never", Path("x"), {"a": 1})) == []
    assert problems(Options(seconds=7)) == []  # an integer is a number


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"beams": 0}, "beams is 0; give 1 to 1,024"),
        ({"beams": 1.0}, "beams is 1.0; give 1 to 1,024"),
        ({"beams": True}, "beams is True; give 1 to 1,024"),
        ({"threads": (1, -1)}, "threads has -1; give 0 (all cores) or more"),
        ({"threads": 4}, "threads is 4; give a tuple; each item: 0 (all cores) or more"),
        ({"seconds": nan}, "seconds is nan; give a number above 0, or None"),
        ({"pair": (2, 1)}, "pair is (2, 1); give two integers that grow"),
        ({"pair": (1, 2, 3)}, "pair is (1, 2, 3); give two integers that grow"),
        ({"mode": "slow"}, "mode is 'slow'; give 'fast' or 'exact'"),
        ({"stop": 1}, "stop is 1; give True or False, or 'never'"),
        ({"cache": 1}, "cache is 1; give a string, or a path, or None"),
        ({"extras": {1: 1}}, "extras is {1: 1}; give a dictionary, or None"),
    ],
)
def test_a_value_against_the_rules_is_named_with_what_to_give(given: dict[str, Any], problem: str) -> None:
    assert problems(Options(**given)) == [problem]


def test_the_fields_that_break_their_rules_are_all_listed() -> None:
    found = problems(Options(beams=0, threads=(-1, 0, -2)))
    assert [problem.split(";")[0] for problem in found] == ["beams is 0", "threads has -1", "threads has -2"]
