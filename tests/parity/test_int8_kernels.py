"""Test ONNX Runtime's int8 kernels on this CPU against integer arithmetic and, node by node, the bundle's weights."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.typing import NDArray

from conftest import CHECKPOINT, CLIPS, ExportOnce
from speech_export.passes.quantize.dynamic_int8 import int8_node, quantized_columns
from speech_export.passes.quantize.int4 import quantized_blocks
from speech_export.precision.options import PrecisionOptions
from speech_runtime import Bundle, OnnxSpeechSeq2Seq, SessionOptions
from speech_runtime.backends.onnxruntime.sessions import _EXACT_BYTES
from speech_runtime.bundle.graph_io import GRAPHS
from speech_runtime.system import bytes_saturate

ROWS = (1, 2, 5, 40)
"""One beam; a pair; the beams of a search, an odd number; a prompt or frames."""
SCALE_INPUT = {"DynamicQuantizeMatMul": 2, "MatMulIntegerToFloat": 3}
"""Products of bytes, and which of their inputs has the scales of the weights; the weights are input 1."""
LEVELS = ("disabled", "basic", "extended", "all")


@pytest.fixture(scope="module")
def int8_digits(export_once: ExportOnce) -> Bundle:
    """The bundled model in int8 for the CPU, as `speech-export` makes it."""
    int8 = PrecisionOptions(precision="int8")
    return Bundle.open(export_once("digits-int8-cpu", CHECKPOINT, precision=int8, calibration_audio=CLIPS))


def run(node: ir.Node, x: NDArray[np.float32], *weights: ir.Value) -> NDArray[np.float32]:
    """A graph of one node, loaded as the runtime loads it."""
    node.outputs[0].name, node.outputs[0].type = "y", ir.TensorType(ir.DataType.FLOAT)
    opsets = {"": 20, "com.microsoft": 1}
    graph = ir.Graph([node.inputs[0]], node.outputs, nodes=[node], initializers=weights, opset_imports=opsets)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if bytes_saturate():
        options.add_session_config_entry(_EXACT_BYTES, "1")
    model = ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    found: NDArray[np.float32] = session.run(None, {str(node.inputs[0].name): x})[0]
    return found


def weight(name: str, array: NDArray[Any]) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    return ir.Value(name=name, const_value=tensor, shape=tensor.shape, type=ir.TensorType(tensor.dtype))


def activations(rank: int = 2) -> ir.Value:
    shape = ir.Shape([f"dimension_{i}" for i in range(rank)])
    return ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=shape)


def in_bytes(x: NDArray[np.float32]) -> tuple[NDArray[np.int64], np.float32]:
    """Activations less their zero point, and their scale: `DynamicQuantizeLinear` of the ONNX specification."""
    least, most = min(x.min(), np.float32(0)), max(x.max(), np.float32(0))
    scale = np.float32((most - least) / np.float32(255))
    zero = np.rint(-least / scale).clip(0, 255)
    return (np.rint(x / scale) + zero).clip(0, 255).astype(np.int64) - int(zero), scale


def saturating(x: NDArray[np.int64], w: NDArray[np.int64]) -> NDArray[np.int64]:
    """`x @ w` as x86 processors without VNNI add it up: pairs of products in 16 bits."""
    pairs = (x[:, :, None] * w[None]).reshape(len(x), -1, 2, w.shape[1]).sum(axis=2)
    summed: NDArray[np.int64] = pairs.clip(-(2**15), 2**15 - 1).sum(axis=1)
    return summed


def quantized_product(x: NDArray[np.float32], matrix: NDArray[np.float32]) -> tuple[NDArray[np.float32], Any, Any]:
    """`x @ matrix` as an int8 graph has it; its weights in bytes, and their scales."""
    values, scale = quantized_columns(matrix)
    weights = weight("w", values), weight("s", scale)
    return run(int8_node("product", activations(), *weights, None), x, *weights), values, scale


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("signs", ["all alike", "in pairs", "at random"])
def test_the_largest_bytes_are_added_up_exactly(rows: int, signs: str) -> None:
    depth, columns = 1024, 96
    sign = np.random.default_rng(rows).choice([-1.0, 1.0], (depth, columns))
    sign = {"all alike": np.ones_like(sign), "in pairs": sign[::2].repeat(2, axis=0), "at random": sign}[signs]
    matrix = (sign * 0.5).astype(np.float32)  # ±127 in bytes
    x = np.full((rows, depth), 3.0, dtype=np.float32)
    x[:, depth // 2 :: 4] = 0.0
    found, values, scale = quantized_product(x, matrix)
    integers, step = in_bytes(x)
    exact = integers @ values.astype(np.int64)
    assert np.abs(values).min() == 127
    assert integers.max() == 255
    np.testing.assert_allclose(found, exact * (step * scale.astype(np.float64)), rtol=1e-6, atol=1e-3)
    if signs != "at random":  # so that saturation would have been noticed
        assert np.abs(saturating(integers, values.astype(np.int64)) - exact).max() > 0.1 * np.abs(exact).max()


@pytest.mark.parametrize(("rows", "depth"), list(product(ROWS, (96, 160, 200, 768))))
def test_every_shape_is_multiplied_by_its_own_weights(rows: int, depth: int) -> None:
    generator = np.random.default_rng(depth + rows)
    x, matrix = (generator.standard_normal(shape).astype(np.float32) for shape in ((rows, depth), (depth, 200)))
    found, values, scale = quantized_product(x, matrix)
    integers, step = in_bytes(x)
    np.testing.assert_allclose(found, integers @ values.astype(np.int64) * (step * scale), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("rows", "depth"), list(product(ROWS, (96, 160, 200, 768))))
@pytest.mark.parametrize("block_size", [16, 32, 64, 128, 256])
@pytest.mark.parametrize(("accuracy_level", "tolerance"), [(0, 1e-5), (1, 1e-5), (4, 1e-2)])
def test_four_bits_of_every_shape_too(
    rows: int, depth: int, block_size: int, accuracy_level: int, tolerance: float
) -> None:
    generator = np.random.default_rng(depth + rows)
    x, matrix = (generator.standard_normal(shape).astype(np.float32) for shape in ((rows, depth), (depth, 200)))
    packed, scales = quantized_blocks(matrix, block_size)
    values = np.stack([packed & 15, packed >> 4], axis=-1).reshape(200, -1).astype(np.float32) - 8
    dequantized = (values * scales.reshape(200, -1).repeat(block_size, axis=1))[:, :depth].T
    weights = weight("w", packed), weight("s", scales.reshape(-1))
    attributes = {"K": depth, "N": 200, "bits": 4, "block_size": block_size, "accuracy_level": accuracy_level}
    node = ir.node("MatMulNBits", [activations(), *weights], attributes, domain="com.microsoft", name="product")
    expected = x @ dequantized
    assert np.linalg.norm(run(node, x, *weights) - expected) <= tolerance * np.linalg.norm(expected)


@pytest.mark.parametrize(("accuracy_level", "least", "most"), [(1, 0.97, 1), (4, 0.6, 0.9), ("int8", 0, 0.2)])
def test_what_a_channel_of_outliers_does_to_the_next_word(accuracy_level: int | str, least: float, most: float) -> None:
    """One channel of the states is 300 times as large as the others; weights as they come.

    Activations in bytes have one scale for all of a tensor in int8 products, and one for each block in `MatMulNBits`:
    there the channel takes only its own block with it. It is why the accuracy gate has to look at int8.
    """
    generator = np.random.default_rng(0)
    x = generator.standard_normal((40, 256)).astype(np.float32)
    x[:, 5] *= 300
    matrix = generator.standard_normal((256, 5000)).astype(np.float32)
    matrix[5] *= 1e-3  # the words do not depend on it
    if accuracy_level == "int8":
        found, values, scale = quantized_product(x, matrix)
        expected = x @ (values * scale)
    else:
        packed, scales = quantized_blocks(matrix, 32)
        values = np.stack([packed & 15, packed >> 4], axis=-1).reshape(5000, -1).astype(np.float32) - 8
        expected = x @ (values * scales.reshape(5000, -1).repeat(32, axis=1)).T
        weights = weight("w", packed), weight("s", scales.reshape(-1))
        attributes = {"K": 256, "N": 5000, "bits": 4, "block_size": 32, "accuracy_level": accuracy_level}
        node = ir.node("MatMulNBits", [activations(), *weights], attributes, domain="com.microsoft", name="product")
        found = run(node, x, *weights)
    agreement = (found.argmax(axis=-1) == expected.argmax(axis=-1)).mean()
    assert least <= agreement <= most


def products(bundle: Bundle) -> Iterator[tuple[str, NDArray[np.int8], NDArray[np.float32]]]:
    """Name, weights and their scales of every product of bytes."""
    for graph in GRAPHS:
        for node in ir.load(bundle.path(f"{graph}.onnx")).graph:
            if (place := SCALE_INPUT.get(node.op_type)) is not None:
                yield f"{graph}: {node.name}", *(node.inputs[i].const_value.numpy() for i in (1, place))


def test_every_product_of_a_bundle_is_that_of_its_weights(int8_digits: Bundle) -> None:
    found = list(products(int8_digits))
    assert len(found) > 30
    for (name, values, scale), rows in product(found, ROWS):
        x = np.random.default_rng(rows).standard_normal((*values.shape[:-2], rows, values.shape[-2])).astype(np.float32)
        weights = weight("w", values), weight("s", scale)
        integers, step = in_bytes(x)
        np.testing.assert_allclose(
            run(int8_node("product", activations(x.ndim), *weights, None), x, *weights),
            integers @ values.astype(np.int64) * (step * scale),
            rtol=1e-5,
            atol=1e-4,
            err_msg=f"{name}, {rows} rows",
        )


@pytest.mark.parametrize(("level", "threads"), list(product(LEVELS, (1, 2))))
def test_no_optimisation_changes_the_tokens(int8_digits: Bundle, level: Any, threads: int) -> None:
    if bytes_saturate() and level in ("disabled", "basic"):
        pytest.skip("the runtime refuses these levels here: they would not be exact")
    plain = OnnxSpeechSeq2Seq.from_pretrained(int8_digits.directory, options=SessionOptions(intra_op_threads=1))
    options = SessionOptions(graph_optimization=level, intra_op_threads=threads)
    other = OnnxSpeechSeq2Seq.from_pretrained(int8_digits.directory, options=options)
    clips = sorted(CLIPS.glob("*.wav"))[:4]
    assert plain.transcribe(clips) == other.transcribe(clips)
