"""Precision and target of a bundle: the options behind `--precision` and `--target`, checked when they are made."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from speech_runtime.bundle.graph_io import ENCODER
from speech_runtime.dataclass_json import Rule, listed, problems

from ..errors import ExportError

Precision = Literal["fp32", "fp16", "int8", "int4"]
Target = Literal["cpu", "cuda", "tensorrt"]
OpKind = Literal["matmul", "embedding"]

_REFUSED: dict[tuple[Precision, Target], str] = {
    ("fp16", "cpu"): "CPUs compute half precision in float32, which is slower; take int8, or fp32",
    ("int8", "cuda"): "dynamic int8 has kernels on the CPU only; take fp16, or --target tensorrt",
    ("int4", "cuda"): "not supported; take fp16",
    ("int4", "tensorrt"): "TensorRT does not know the operator MatMulNBits; take fp16",
}
"""Unsupported pairs, each with the reason and the remedy."""

BlockSize = Annotated[int, Rule((16, 32, 64, 128, 256).__contains__, "16, 32, 64, 128 or 256")]
AccuracyLevel = Annotated[int, Rule((0, 1, 4).__contains__, "0, 1 or 4")]


@dataclass(frozen=True)
class PrecisionOptions:
    """Precision of weights and arithmetic, for each graph.

    - `fp32`: All in float32, as traced.
    - `fp16`: For GPUs. Weights, caches and arithmetic in half precision; float32 where half cannot hold the numbers.
    - `int8`: Weights in 8 bits with a scale for each output channel, activations with one scale for each tensor. On the
      CPU activations are quantised at run time. For TensorRT their scales are measured on audio beforehand and written
      as QuantizeLinear and DequantizeLinear. A table that is both embedding and output projection is stored once.
    - `int4`: Decoder weights in 4 bits with a scale for each block; output projection and encoder in int8. 4 bits save
      memory and bandwidth, which limit a decoder with few beams, and cost arithmetic, which limits an encoder. Set
      `encoder_precision="int4"` if only memory counts.

    Attributes:
        precision: Precision of all graphs, unless one of the next two is set.
        target: Hardware or library that runs the graphs.
        encoder_precision: Precision of the encoder.
        decoder_precision: Precision of `decoder_init` and `decoder_with_past`.
        op_kinds: Kinds of operators that int8 and int4 quantise: constant matrix products, and the embedding of an
            output projection or of a vocabulary.
        keep_float32: Patterns (`fnmatch`) of modules that stay float32, such as `decoder.lm_head` or `*.layers.0.*`.
        block_size: Number of weights that share a scale; int4 only.
        accuracy_level: Arithmetic of `MatMulNBits`: 4 multiplies in int8, 1 in float32, 0 is ONNX Runtime's choice.

    Raises:
        ExportError: A value is unknown, or a pair is not supported; all problems are listed.
    """

    precision: Precision = "fp32"
    target: Target = "cpu"
    encoder_precision: Precision | None = None
    decoder_precision: Precision | None = None
    op_kinds: tuple[OpKind, ...] = get_args(OpKind)
    keep_float32: tuple[str, ...] = ()
    block_size: BlockSize = 32
    accuracy_level: AccuracyLevel = 4

    def __post_init__(self) -> None:
        """Check the values, then their combinations."""
        for name in ("op_kinds", "keep_float32"):
            if isinstance(given := getattr(self, name), list):
                object.__setattr__(self, name, tuple(given))
        if found := problems(self) or list(self._unsupported()):
            raise ExportError(f"precision: {listed(found)}")

    def of(self, graph: str) -> Precision:
        """Return the precision of a graph of the bundle."""
        if graph == ENCODER:
            return self.encoder_precision or ("int8" if self.precision == "int4" else self.precision)
        return self.decoder_precision or self.precision

    @property
    def encoder_in_bytes(self) -> bool:
        """True if the encoder's matrix products will be quantised, which tracing prepares."""
        return self.of(ENCODER) in ("int8", "int4") and "matmul" in self.op_kinds

    @property
    def below_float32(self) -> bool:
        """True if any graph is below float32."""
        return any(precision != "fp32" for precision in self._given())

    @property
    def halves(self) -> bool:
        """True if any graph is fp16; all others are then float32."""
        return "fp16" in self._given()

    @property
    def quantises_explicitly(self) -> bool:
        """True if any graph is int8 in standard ONNX, for TensorRT; all others are then float32."""
        return self.target == "tensorrt" and "int8" in self._given()

    def _given(self) -> tuple[Precision, Precision]:
        return self.encoder_precision or self.precision, self.decoder_precision or self.precision

    def _unsupported(self) -> Iterator[str]:
        for precision in sorted({self.precision, *self._given()}):
            if reason := _REFUSED.get((precision, self.target)):
                yield f"{precision} for {self.target}: {reason}"
        if self.halves and self.quantises_explicitly:
            yield "fp16 and int8 in one bundle: each is measured beside float32 only; take fp32 for either"
        if self.halves and self.op_kinds != get_args(OpKind):
            yield "op_kinds goes with int8 and int4; keep modules out of fp16 with keep_float32"
        elif self.below_float32 and not self.op_kinds:
            yield "op_kinds is empty: nothing would be quantised; name at least one, or take fp32"
        if self.keep_float32 and not self.below_float32:
            yield "keep_float32 goes with a precision below fp32: everything is float32 already"
