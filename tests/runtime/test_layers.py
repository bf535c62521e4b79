"""Test that imports within speech_runtime point downwards only, and never to the exporter or torch."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import REPOSITORY

ROOT = REPOSITORY / "runtime" / "speech_runtime"
LAYERS: tuple[tuple[str, ...], ...] = (
    (
        *("errors", "dataclass_json", "system", "control_groups", "interrupts", "install_hints", "telemetry", "atomic"),
        *("neutral_arguments", "paths"),
    ),
    ("bundle",),
    ("audio",),
    ("input_checks",),
    ("backends",),
    ("generation",),
    ("transcribe", "processor"),
    ("model",),
    ("bench",),
    ("cli",),
    ("__init__", "__main__"),
)
"""Packages and modules from the lowest layer to the highest. A layer imports from lower layers, and the parts of the
lowest one from each other."""
LAYER = {name: layer for layer, names in enumerate(LAYERS) for name in names}
READS_BUNDLES = {"audio/features/extractor.py"}
"""Files of `audio` that may import `bundle`: a feature extractor is read from one, and must fit its encoder."""
FORBIDDEN = {"speech_export", "torch", "transformers"}


def imports_of(path: Path) -> Iterator[str]:
    """Full names of all modules that a file imports, whether at its top or in a function."""
    package = ["speech_runtime", *path.relative_to(ROOT).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def part_of(path: Path) -> str:
    """The package or module directly below speech_runtime that a file belongs to."""
    return path.relative_to(ROOT).with_suffix("").parts[0]


FILES = sorted(ROOT.rglob("*.py"))


def test_every_part_has_a_layer() -> None:
    assert {part_of(path) for path in FILES} == set(LAYER)


@pytest.mark.parametrize("part", sorted(LAYER))
def test_imports_go_to_lower_layers(part: str) -> None:
    upward = []
    for path in FILES:
        for module in imports_of(path) if part_of(path) == part else ():
            package, _, rest = module.partition(".")
            target = rest.partition(".")[0]
            if package != "speech_runtime" or target not in LAYER or target == part:
                continue
            if LAYER[target] >= max(LAYER[part], 1):
                upward.append(f"{path.relative_to(ROOT)} imports {module}")
    assert not upward


def test_audio_knows_bundles_in_one_file_only() -> None:
    found = {
        path.relative_to(ROOT).as_posix()
        for path in FILES
        if part_of(path) == "audio" and any(module.startswith("speech_runtime.bundle.") for module in imports_of(path))
    }
    assert found == READS_BUNDLES


def test_the_runtime_imports_neither_the_exporter_nor_torch() -> None:
    found = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in FILES
        for module in imports_of(path)
        if module.partition(".")[0] in FORBIDDEN
    ]
    assert not found
