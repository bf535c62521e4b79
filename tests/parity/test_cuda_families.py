"""Test every family with graphs for CUDA: transformers' tokens on the CPU, and operators that are fast on a GPU."""

from collections import Counter
from pathlib import Path

import onnx_ir as ir
import pytest

import half_matrix
from cuda_rules import violations
from matrix import ENCODER_ROWS, Pairing, measured_in
from speech_export.precision.options import PrecisionOptions
from speech_runtime.bundle.graph_io import ENCODER, GRAPHS

pytestmark = pytest.mark.usefixtures("short_verification", "traced_once")

FOR_CUDA = PrecisionOptions(target="cuda")
BY_DEFAULT = {
    "wavlm",  # attention that the rewrite takes the place of, with a position bias
    "wav2vec2-bert, relative",  # a position bias, and convolutions with a group for each channel
    "wav2vec2, adapter",  # the most common encoder, and fewer frames after the adapter
}
"""One row for each mechanism; `make test-all` runs every row."""

LAYERS = 2
WITHOUT_FUSED_ATTENTION = {"sew-d"}
"""Encoders with an attention of their own; that of SEW-D has two position biases that depend on the keys."""

ROWS = [
    pytest.param(row, id=row.name, marks=[] if row.name in BY_DEFAULT else [pytest.mark.full]) for row in ENCODER_ROWS
]


@pytest.mark.parametrize("row", ROWS)
def test_a_family_for_cuda_gives_the_tokens_of_transformers(row: Pairing, tmp_path: Path) -> None:
    directory = tmp_path / "bundle"
    found = measured_in(directory, row, FOR_CUDA)
    assert found.logprob_difference <= 1e-4
    assert (found.greedy, found.beams) == (1, 1)
    assert found.padding <= found.torch_padding + 1e-4
    halved = half_matrix.make(directory, tmp_path)
    for bundle in (directory, halved.half):
        assert [problem for graph in GRAPHS for problem in violations(bundle / f"{graph}.onnx")] == []
    encoder = Counter(node.op_type for node in ir.load(directory / f"{ENCODER}.onnx").graph)
    assert encoder["Attention"] >= (0 if row.name in WITHOUT_FUSED_ATTENTION else LAYERS)
    assert encoder["SkipLayerNormalization"] >= LAYERS
