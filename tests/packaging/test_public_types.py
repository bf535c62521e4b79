"""Every type that a public signature mentions can be imported from `speech_runtime`."""

import ast
import importlib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from importlib.util import resolve_name
from typing import Annotated, Any, get_origin

import pytest

import speech_runtime

COMPOSED = {f"{name}.__init__" for name in ("OnnxSpeechSeq2Seq", "Scheduler", "SpeechGenerator", "SpeechProcessor")}
"""Constructors of what `from_pretrained` and `scheduler` make: they take parts that are not public."""


def annotations(owner: type) -> Iterator[tuple[str, ast.expr]]:
    """The annotations of a class's public fields, methods and constructor, with their names."""
    for base in owner.__mro__:
        if not base.__module__.startswith("speech_runtime"):
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(definition, ast.ClassDef)
        for node in definition.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                yield f"{base.__module__}:{base.__name__}.{node.target.id}", node.annotation
            elif isinstance(node, ast.FunctionDef):
                parts = [*node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
                given = [part.annotation for part in parts if part is not None]
                for each in (*given, node.returns):
                    if each is not None:
                        yield f"{base.__module__}:{base.__name__}.{node.name}", each


def mentioned(annotation: ast.expr) -> set[str]:
    """The names in an annotation, without the rules of `Annotated`."""
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Annotated":
        assert isinstance(annotation.slice, ast.Tuple)
        return mentioned(annotation.slice.elts[0])
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return mentioned(ast.parse(annotation.value, mode="eval").body) if annotation.value.isidentifier() else set()
    own = {annotation.id} if isinstance(annotation, ast.Name) else set()
    return own.union(*(mentioned(child) for child in ast.iter_child_nodes(annotation) if isinstance(child, ast.expr)))


def is_ours(module: str, name: str) -> bool:
    """Whether a name of a module is defined in `speech_runtime`."""
    for node in ast.parse(inspect.getsource(sys.modules[module])).body:
        if isinstance(node, ast.ImportFrom) and name in {each.asname or each.name for each in node.names}:
            source = "." * node.level + (node.module or "")
            return resolve_name(source, sys.modules[module].__package__).startswith("speech_runtime")
    value = vars(sys.modules[module]).get(name)
    return value is not None and not inspect.ismodule(value)


def stands_for_a_builtin(kind: Any) -> bool:
    """Whether an alias is a number or a tuple with rules, or anything at all; the API pages show it as that."""
    return kind is Any or get_origin(kind) in (Annotated, tuple)


CLASSES = [name for name in speech_runtime.__all__ if inspect.isclass(getattr(speech_runtime, name))]


@pytest.mark.parametrize("name", CLASSES)
def test_types_in_signatures_are_public(name: str) -> None:
    missing = {
        f"{where.partition(':')[2]}: {kind}"
        for where, annotation in annotations(getattr(speech_runtime, name))
        for kind in mentioned(annotation)
        if is_public(where)
        and kind not in speech_runtime.__all__
        and is_ours(where.partition(":")[0], kind)
        and not stands_for_a_builtin(getattr(importlib.import_module(where.partition(":")[0]), kind))
    }
    assert not missing


def is_public(where: str) -> bool:
    owner, _, member = where.partition(":")[2].partition(".")
    return f"{owner}.{member}" not in COMPOSED and (not member.startswith("_") or member in ("__init__", "__call__"))


def test_the_walk_finds_types() -> None:
    found = {kind for _, annotation in annotations(speech_runtime.OnnxSpeechSeq2Seq) for kind in mentioned(annotation)}
    assert {"Audio", "AudioLimits", "Prompts", "GenerateOutput", "ClipKeywords", "Backend", "Path"} <= found
    assert is_ours("speech_runtime.model", "Audio")
    assert not is_ours("speech_runtime.model", "Path")
    assert not is_ours("speech_runtime.model", "str")
