"""Arguments of transformers that ask for what is done anyway: they are taken, and other values are answered."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

from .dataclass_json import shown
from .errors import SpeechError

Method = TypeVar("Method", bound=Callable[..., Any])


@dataclass(frozen=True)
class NeutralArgument:
    """An argument that has no place here.

    Attributes:
        neutral: Values that change nothing, besides None.
        remedy: What to do in place of other values.
    """

    neutral: tuple[object, ...]
    remedy: str


def takes_neutral(
    arguments: Callable[[Any], Mapping[str, NeutralArgument]], error: type[SpeechError]
) -> Callable[[Method], Method]:
    """Let a method take arguments of transformers at run time; type checkers see the method's own arguments only.

    Args:
        arguments: Function that takes the method's object, and returns the arguments by their names.
        error: Class of the error for a value that is not neutral.
    """

    def decorate(method: Method) -> Method:
        @wraps(method)
        def call(owner: Any, *given: Any, **keywords: Any) -> Any:
            known = arguments(owner)
            for name, value in keywords.items():
                if name in known and not _is_neutral(value, known[name].neutral):
                    raise error(f"{name} is {shown(value)}, which is not possible: {known[name].remedy}")
            return method(owner, *given, **{name: value for name, value in keywords.items() if name not in known})

        return call  # type: ignore[return-value]  # it takes what the method takes, and more

    return decorate


def _is_neutral(value: object, neutral: tuple[object, ...]) -> bool:
    return value is None or any(type(value) is type(other) and value == other for other in neutral)
