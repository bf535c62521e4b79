"""Measure the limits of the machine, memory reads and integer multiplications, and what they imply for a model."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

_READ_BYTES = 2**30
_ROWS, _INNER, _COLUMNS = 512, 1024, 4096
"""A layer of the reference encoder on ten seconds of audio: 499 frames, rounded up."""
_REPEATS = 10


@dataclass(frozen=True)
class Limits:
    """Rates of this machine with `threads` threads.

    Attributes:
        threads: Number of threads of the measurement.
        read: bytes a second from memory that no cache holds.
        int8: operations (two for each product and its sum) a second of ONNX Runtime's integer matrix product.
        float32: of its float one.
    """

    threads: int
    read: float
    int8: float
    float32: float

    def encoder_seconds(self, config: dict[str, Any], seconds: float) -> float:
        """The least time of an int8 encoder that spends nothing on anything but products."""
        return encoder_operations(config, seconds) / self.int8

    def step_seconds(self, weights: int) -> float:
        """The least time of a decoding step: each of its `weights` bytes is read once."""
        return weights / self.read


def measure_limits(threads: int) -> Limits:
    """Measure with `threads` threads; the best of several runs, since whatever disturbs one only slows it."""
    return Limits(threads, _read_rate(threads), _product_rate(threads, integer=True), _product_rate(threads))


def encoder_operations(config: dict[str, Any], seconds: float, rate: int = 16_000) -> float:
    """Return the operations of a Wav2Vec2 encoder with adapter; a multiplication and its addition count as two.

    Args:
        config: Configuration of transformers, as a dictionary.
        seconds: Length of the audio.
        rate: samples a second.
    """
    length, channels, products = int(seconds * rate), 1, 0
    for width, kernel, stride in zip(config["conv_dim"], config["conv_kernel"], config["conv_stride"], strict=True):
        length = (length - kernel) // stride + 1
        products += length * channels * width * kernel
        channels = width
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    products += length * channels * hidden
    group = hidden // config["num_conv_pos_embedding_groups"]
    products += length * hidden * group * config["num_conv_pos_embeddings"]
    layer = length * (4 * hidden * hidden + 2 * hidden * inner) + 2 * length * length * hidden
    products += config["num_hidden_layers"] * layer
    for _ in range(config["num_adapter_layers"] if config["add_adapter"] else 0):
        length = (length + 2 - config["adapter_kernel_size"]) // config["adapter_stride"] + 1
        products += length * hidden * 2 * hidden * config["adapter_kernel_size"]
    return float(2 * products)


def _read_rate(threads: int) -> float:
    block = np.ones(_READ_BYTES // 8, dtype=np.int64)
    parts = np.array_split(block, threads)

    def read_all() -> None:
        # A maximum is the cheapest reduction that numpy vectorises, and it lets other threads run.
        list(pool.map(np.max, parts))

    with ThreadPoolExecutor(threads) as pool:
        return float(block.nbytes / _best(read_all))


def _product_rate(threads: int, *, integer: bool = False) -> float:
    random = np.random.default_rng(0)
    if integer:
        weight: Any = random.integers(-127, 128, (_INNER, _COLUMNS), dtype=np.int8)
        values: Any = random.integers(0, 256, (_ROWS, _INNER), dtype=np.uint8)
        operator, given, made = "MatMulInteger", TensorProto.UINT8, TensorProto.INT32
    else:
        weight = random.standard_normal((_INNER, _COLUMNS), dtype=np.float32)
        values = random.standard_normal((_ROWS, _INNER), dtype=np.float32)
        operator, given, made = "MatMul", TensorProto.FLOAT, TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", "weight"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", given, [_ROWS, _INNER])],
        [helper.make_tensor_value_info("y", made, [_ROWS, _COLUMNS])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    onnx.checker.check_model(model)
    seconds = _best(lambda: session.run(None, {"x": values}))
    return 2.0 * _ROWS * _INNER * _COLUMNS / seconds


def _best(work: Callable[[], Any]) -> float:
    times = []
    for _ in range(_REPEATS):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)
