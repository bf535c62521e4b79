"""Help for every setting and option of a call, from the same declarations as their checks."""

import inspect
import re
import textwrap
import types
from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from ..dataclass_json import allowed_values
from .call_options import CallOptions, SearchKeywords
from .config import GenerationConfig

Function = TypeVar("Function", bound=Callable[..., Any])

_NO_KEYWORD = ("bos_token_id", "return_dict_in_generate")
"""Fields that are no settings of a call (`decoder_start_token_id` overrides it), or that `generate` declares itself."""


def descriptions(record: type) -> dict[str, str]:
    """Read the descriptions of a class's attributes from its docstring, which Python drops with -OO."""
    attributes = (inspect.getdoc(record) or "").partition("Attributes:\n")[2]
    found = re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", attributes, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def setting_help() -> list[str]:
    """Return a line for each setting and each option of a call: name, type, meaning, allowed values and default."""
    allowed, given = get_type_hints(GenerationConfig, include_extras=True), get_type_hints(SearchKeywords)
    lines = []
    for record in (GenerationConfig, CallOptions):
        texts = descriptions(record)
        for field in fields(record):
            if field.name in _NO_KEYWORD:
                continue
            values = _values(allowed[field.name]) if record is GenerationConfig else ""
            text = f"{texts.get(field.name, '')}{values} Default: {_shown(field.default)}."
            lines.append(f"{field.name} ({_type_of(given[field.name])}): {text}")
    return lines


def with_setting_help(function: Function) -> Function:
    """Add the settings and options of a call to the docstring of a function that takes them as keywords."""
    if function.__doc__:  # None with -OO
        before, returns, after = inspect.cleandoc(function.__doc__).partition("\nReturns:\n")
        lines = (textwrap.fill(line, 112, subsequent_indent="    ", break_long_words=False) for line in setting_help())
        listed = textwrap.indent("\n".join(lines), "    ")
        function.__doc__ = f"{before}\nKeyword Args:\n{listed}\n{returns}{after}"
    return function


def _values(kind: Any) -> str:
    """Return the values that are allowed where the type does not say it."""
    words = allowed_values(kind).removesuffix(", or None")
    return f" Allowed: {words}." if re.search(r"\d", words) else ""


def _shown(default: object) -> str:
    return "none" if default == () else repr(default)


def _type_of(kind: Any) -> str:
    """Return a type as it is written; functions and objects of other libraries by one word."""
    if get_origin(kind) in (Union, types.UnionType):
        return " | ".join(map(_type_of, get_args(kind)))
    if isinstance(kind, type) and not get_args(kind):
        return "None" if kind is type(None) else kind.__name__
    text = re.sub(r"\b(?:typing|collections\.abc)\.", "", str(kind))
    return "Sequence[Callable]" if text.startswith("Sequence[Callable") else text
