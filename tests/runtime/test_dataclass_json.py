"""Strict records: everything that is wrong is listed, in one error."""

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from speech_runtime.dataclass_json import FieldError, from_json


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
