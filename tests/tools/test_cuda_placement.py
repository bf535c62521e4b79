"""Test that the computed placement of nodes shows every copy between the CPU and the GPU."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cuda_placement import obstacles

ONE, AXES = np.array([1], dtype=np.int64), np.array([0], dtype=np.int64)


def graph(path: Path, *nodes: Any) -> Path:
    """Return a graph from `x`, float [rows, 4], and `length`, int64 [1], to `y`."""
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4]),
        helper.make_tensor_value_info("length", TensorProto.INT64, [1]),
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    constants = [numpy_helper.from_array(ONE, "one"), numpy_helper.from_array(AXES, "axes")]
    proto = helper.make_graph(list(nodes), "graph", inputs, [output], constants)
    onnx.save(helper.make_model(proto, opset_imports=[helper.make_opsetid("", 20)]), path)
    return path


node = helper.make_node


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([node("Shape", ["x"], ["s"], end=1), node("Reshape", ["x", "s"], ["y"])], None),
        (
            [
                node("Shape", ["x"], ["s"]),
                node("Add", ["s", "one"], ["t"]),
                node("Expand", ["x", "t"], ["y"]),
            ],
            None,  # it stays on the CPU, and is wanted there
        ),
        (
            [
                node("Shape", ["x"], ["s"], start=1),
                node("Cast", ["s"], ["t"], to=TensorProto.FLOAT, name="cast"),
                node("Relu", ["x"], ["r"]),
                node("Mul", ["r", "t"], ["y"], name="mul"),
            ],
            "t is made on the CPU, and Mul mul reads it on the GPU",
        ),
        (
            [
                node("Shape", ["x"], ["s"], end=1),
                node("Add", ["s", "length"], ["t"], name="add"),
                node("Slice", ["x", "axes", "t", "axes"], ["y"]),
            ],
            "Add add on the CPU reads length",
        ),
        (
            [node("Slice", ["x", "axes", "length", "axes"], ["y"], name="slice")],
            "length is made on the GPU, and Slice slice reads it on the CPU",
        ),
        (
            [node("Unsqueeze", ["length", "one"], ["i"]), node("GatherND", ["x", "i"], ["y"], name="gather")],
            "GatherND gather has no kernel there that can be recorded",
        ),
    ],
    ids=["shape", "arithmetic", "value", "input on the CPU", "bound", "kernel"],
)
def test_what_would_be_copied_is_found(nodes: list[Any], said: str | None, tmp_path: Path) -> None:
    assert obstacles(graph(tmp_path / "graph.onnx", *nodes)) == ([] if said is None else [said])
