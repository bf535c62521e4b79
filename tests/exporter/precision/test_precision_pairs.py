"""Test the pairs of precision and target that can be exported, and the errors for the others."""

from typing import Any

import pytest

from speech_export import ExportError
from speech_export.precision.options import PrecisionOptions
from speech_runtime.bundle.graph_io import DECODER_INIT, DECODER_WITH_PAST, ENCODER, GRAPHS


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "int4", "target": "tensorrt"}, "int4 for tensorrt: TensorRT does not know.*take fp16"),
        ({"precision": "int8", "target": "cuda"}, "int8 for cuda: .*on the CPU only; take fp16, or --target tensorrt"),
        (
            {"target": "tensorrt", "encoder_precision": "fp16", "decoder_precision": "int8"},
            "fp16 and int8 in one bundle: .*take fp32 for either",
        ),
        ({"precision": "fp16"}, "fp16 for cpu: CPUs compute half precision in float32.*take int8, or fp32"),
        ({"encoder_precision": "fp16"}, "fp16 for cpu"),
        ({"target": "tensorrt", "decoder_precision": "int4"}, "int4 for tensorrt"),
        ({"precision": "int3"}, "precision is 'int3'; give one of 'fp32', 'fp16', 'int8', 'int4'"),
        ({"target": "tpu"}, "target is 'tpu'; give one of 'cpu', 'cuda', 'tensorrt'"),
        ({"precision": "int4", "block_size": 48}, "block_size is 48; give 16, 32, 64, 128 or 256"),
        ({"precision": "int4", "accuracy_level": 7}, "accuracy_level is 7; give 0, 1 or 4"),
        ({"precision": "int8", "op_kinds": ("conv",)}, "op_kinds has 'conv'; give 'matmul' or 'embedding'"),
        ({"precision": "fp16", "target": "cuda", "op_kinds": ("matmul",)}, "op_kinds goes with int8 and int4; keep"),
        ({"precision": "int8", "op_kinds": ()}, "op_kinds is empty"),
        ({"keep_float32": ("*",)}, "keep_float32 goes with a precision below fp32"),
    ],
)
def test_what_cannot_be_meant_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        PrecisionOptions(**settings)


def test_all_problems_are_listed() -> None:
    with pytest.raises(ExportError, match=r"(?s)precision is 'int3'.*target is 'tpu'"):
        PrecisionOptions(precision="int3", target="tpu")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ("fp32", "fp32", "fp32")),
        ({"precision": "int8"}, ("int8", "int8", "int8")),
        ({"precision": "int4"}, ("int8", "int4", "int4")),
        ({"precision": "int4", "encoder_precision": "int4"}, ("int4", "int4", "int4")),
        ({"precision": "int8", "encoder_precision": "fp32"}, ("fp32", "int8", "int8")),
        ({"decoder_precision": "int8"}, ("fp32", "int8", "int8")),
        ({"precision": "fp16", "target": "tensorrt"}, ("fp16", "fp16", "fp16")),
        ({"encoder_precision": "fp16", "target": "cuda"}, ("fp16", "fp32", "fp32")),
        ({"encoder_precision": "int8", "target": "tensorrt"}, ("int8", "fp32", "fp32")),
    ],
)
def test_each_graph_has_a_precision(settings: dict[str, Any], expected: tuple[str, ...]) -> None:
    options = PrecisionOptions(**settings)
    assert tuple(options.of(graph) for graph in (ENCODER, DECODER_INIT, DECODER_WITH_PAST)) == expected
    assert options.below_float32 == any(options.of(graph) != "fp32" for graph in GRAPHS)
    assert options.halves == ("fp16" in expected)
    assert options.quantises_explicitly == (options.target == "tensorrt" and "int8" in expected)
