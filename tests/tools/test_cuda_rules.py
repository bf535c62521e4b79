"""Test that what is slow or fails on CUDA is seen in a graph."""

from pathlib import Path

import onnx_ir as ir
import pytest

from cuda_rules import violations
from text_graphs import text_graph

WIDE = "float[b, n, 8]"
HEADS = "<q_num_heads = 2, kv_num_heads = 2>"


@pytest.mark.parametrize(
    ("inputs", "body", "said"),
    [
        (f"{WIDE} x, int64[b] lengths", f"y = Attention {HEADS} (x, x, x, , , , lengths)", None),
        (f"{WIDE} x, float[b, 1, n, n] mask", f"y = Attention {HEADS} (x, x, x, mask)", None),
        (f"{WIDE} x, float[b, 1, 1, n] mask", f"y = Attention {HEADS} (x, x, x, mask)", "give lengths"),
        (f"{WIDE} x, bool[b, 1, n, n] mask", f"y = Attention {HEADS} (x, x, x, mask)", "mask of booleans"),
        (f"{WIDE} x, float[b, 2, n, 4] z", "w = Attention (z, z, z)  y = Add (x, x)", "states by head"),
        (f"{WIDE} x", "a, c = Split <axis = 2, num_outputs = 2> (x)  y = Concat <axis = 2> (c, a)", None),
        (f"{WIDE} x", "a, c = Split <axis = 2> (x, unequal)  y = Concat <axis = 2> (c, a)", "different sizes"),
        (f"{WIDE} x", "y = Hardmax (x)", "not known to have a CUDA kernel"),
    ],
)
def test_what_a_kernel_cannot_do_well_is_named(inputs: str, body: str, said: str | None, tmp_path: Path) -> None:
    model = text_graph(inputs, f"{WIDE} y", body, {}, "int64[2] unequal = {3, 5}")
    ir.save(model, tmp_path / "graph.onnx")
    found = violations(tmp_path / "graph.onnx")
    assert found == [] if said is None else len(found) == 1 and said in found[0]
