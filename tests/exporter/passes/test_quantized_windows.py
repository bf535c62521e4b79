"""Test that quantising before windows are gathered equals quantising after, for one group and for many."""

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from matrix import Array
from small_graphs import run
from speech_export.passes.quantize.dynamic_int8 import grouped_products, quantize_groups
from speech_export.passes.quantize.quantized_windows import quantize_before_windows
from speech_export.tracing.rewrites.block_convolution import BlockConvolution

CHANNELS, KERNEL, WIDTH = 4, 3, 5


def convolution(bias: bool) -> ir.Model:
    """A convolution of stride 2 as int8 product of gathered rows."""
    random = np.random.default_rng(0)
    constants = {
        "rows": (2 * np.arange(4)[:, None] + np.arange(KERNEL)).flatten(),
        "shape": np.array([0, 4, KERNEL * CHANNELS]),
        "weight": random.integers(-127, 128, (KERNEL * CHANNELS, WIDTH)).astype(np.int8),
        "scale": random.random(WIDTH).astype(np.float32) / 100,
        "bias": random.standard_normal(WIDTH).astype(np.float32),
    }
    values = {
        name: ir.Value(name=name, const_value=ir.tensor(array), shape=ir.Shape(array.shape))
        for name, array in constants.items()
    }
    hidden_states = ir.val("hidden_states", ir.DataType.FLOAT, [None, None, CHANNELS])
    gather = ir.node("Gather", [hidden_states, values["rows"]], {"axis": 1}, name="gather")
    reshape = ir.node("Reshape", [gather.outputs[0], values["shape"]], name="reshape")
    inputs = [reshape.outputs[0], values["weight"], values["scale"], None, values["bias"] if bias else None]
    product = ir.node("DynamicQuantizeMatMul", inputs, domain="com.microsoft", name="conv")
    product.outputs[0].name, product.outputs[0].type = "convolved", ir.TensorType(ir.DataType.FLOAT)
    nodes, imports = [gather, reshape, product], {"": 20, "com.microsoft": 1}
    graph = ir.Graph(
        [hidden_states], product.outputs, nodes=nodes, initializers=values.values(), opset_imports=imports, name="g"
    )
    return ir.Model(graph, ir_version=10)


def answer(model: ir.Model, hidden_states: Array) -> Array:
    return run(model, {"hidden_states": hidden_states})[0]


@pytest.mark.parametrize("bias", [True, False])
def test_windows_of_bytes(bias: bool) -> None:
    hidden_states = np.random.default_rng(1).standard_normal((2, 9, CHANNELS)).astype(np.float32)
    model = convolution(bias)
    expected = answer(model, hidden_states)
    quantize_before_windows(model)
    found = answer(model, hidden_states)
    assert [node.op_type for node in model.graph] == [
        "DynamicQuantizeLinear",
        "Gather",
        "Reshape",
        "MatMulIntegerToFloat",
    ]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def grouped_convolution() -> tuple[nn.Conv1d, ir.Model]:
    """One of 3 groups of 4 channels, and what it is traced into."""
    torch.manual_seed(0)
    conv = nn.Conv1d(12, 12, 9, padding=4, groups=3).requires_grad_(False)
    sizes = {"hidden_states": {0: torch.export.Dim("batch"), 1: torch.export.Dim("frames", min=2, max=999)}}
    module, example = BlockConvolution(conv).eval(), (torch.randn(2, 31, 12),)
    program = torch.onnx.export(module, example, dynamo=True, dynamic_shapes=sizes, verbose=False)
    assert program is not None
    program.optimize()
    return conv, program.model


def test_a_grouped_convolution_in_int8() -> None:
    conv, model = grouped_convolution()
    hidden_states = np.random.default_rng(1).standard_normal((3, 50, 12)).astype(np.float32)
    expected = conv(torch.from_numpy(hidden_states).transpose(1, 2))[:, :, :50].transpose(1, 2).numpy()
    np.testing.assert_allclose(answer(model, hidden_states), expected, atol=1e-5)
    quantize_groups(model, list(grouped_products(model.graph)))
    apart = answer(model, hidden_states)
    assert np.abs(apart - expected).max() < 0.02 * np.abs(expected).max()
    quantize_before_windows(model)
    kinds = [node.op_type for node in model.graph]
    assert kinds.index("DynamicQuantizeLinear") < kinds.index("Transpose") < kinds.index("MatMulIntegerToFloat")
    np.testing.assert_allclose(answer(model, hidden_states), apart, atol=1e-5)
