"""Test the table of platforms, Pythons and extras of `tools/lock.py`; `make lock-check` fills it with uv."""

from itertools import product

import lock

EXTRAS = ["cuda", "hub"]
WANTED = list(product(EXTRAS, lock.PLATFORMS, lock.PYTHONS))
CELLS = {cell: lock.Cell(frozenset({"onnxruntime-gpu", "huggingface-hub", "numpy"})) for cell in WANTED}


def test_extras_of_extras_are_asked_for_too() -> None:
    names = lock.direct_requirements("bench")
    assert {"openvino", "pytest", "torch", "soundfile", "tensorrt-rtx-cu13"} <= names
    assert "speech-export" not in names
    assert lock.direct_requirements("") == {"click", "numpy", "tokenizers"}


def test_one_number_where_all_pythons_agree() -> None:
    assert lock.table(CELLS, EXTRAS).splitlines()[-1] == "| `hub` | 3 | 3 | 3 | 3 |"


def test_what_a_platform_lacks_is_said() -> None:
    without = dict.fromkeys(product(["cuda"], ["macOS 14 arm64"], lock.PYTHONS), lock.Cell(frozenset({"numpy"})))
    broken = {("cuda", "Linux arm64", "3.14"): lock.Cell(frozenset(), "no wheels")}
    row = lock.table(CELLS | without | broken, EXTRAS).splitlines()[2]
    assert row == "| `cuda` | 3 | 3.11: 3, 3.12: 3, 3.13: 3, 3.14: **does not resolve** | none there | 3 |"


def test_a_part_of_an_extra_that_is_missing_is_named() -> None:
    cell = lock.Cell(lock.direct_requirements("dev") - {"tensorrt-rtx-cu13"})
    assert lock.describe("dev", cell).endswith(" − tensorrt-rtx-cu13")
