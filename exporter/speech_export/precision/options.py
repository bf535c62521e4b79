"""Options of `--precision` and `--target`, which determine the numbers that a bundle computes with."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from speech_runtime.bundle.graph_io import ENCODER
from speech_runtime.dataclass_json import Rule, problems

from ..errors import ExportError

Precision = Literal["fp32", "fp16", "int8", "int4"]
Target = Literal["cpu", "cuda", "tensorrt"]
OpKind = Literal["matmul", "embedding"]

_RELEASES_TO_COME = "not in this release"
_REFUSED: dict[tuple[Precision, Target], str] = {
    ("fp16", "cpu"): "CPUs compute half precision in float32, which is slower; take int8, or fp32",
    ("int8", "cuda"): "dynamic int8 has kernels on the CPU only; take fp16, or --target tensorrt",
    ("int4", "cuda"): f"{_RELEASES_TO_COME}; take fp16",
    ("int4", "tensorrt"): "TensorRT does not know the operator MatMulNBits; take fp16",
}
"""Pairs of precision and target that are not supported, each with the reason and an alternative."""

_BlockSize = Annotated[int, Rule(lambda size: size in (16, 32, 64, 128, 256), "one of 16, 32, 64, 128, 256")]
_AccuracyLevel = Annotated[int, Rule(lambda level: level in (0, 1, 4), "one of 0, 1, 4")]


@dataclass(frozen=True)
class PrecisionOptions:
    """How the weights are stored and what the graphs compute with.

    - `fp32`: as traced.
    - `fp16`: for GPUs: weights, caches and arithmetic in half precision, float32 where that does not hold the numbers.
    - `int8`: weights in 8 bits with a scale for each output channel; activations with one scale for each tensor: as
      they come on the CPU, for TensorRT measured on audio beforehand, in QuantizeLinear and DequantizeLinear. A table
      that is both embedding and output projection is stored once.
    - `int4`: weights of the decoder in 4 bits with a scale for each block, but its output projection in int8, and the
      encoder in int8: 4 bits save memory and bandwidth, which is what a decoder with few beams waits for, and cost
      arithmetic, which is what an encoder waits for. `encoder_precision="int4"` where memory is all that counts.

    Attributes:
        precision: Precision of all graphs, unless one of the two below is set.
        target: Device that the graphs are exported for.
        encoder_precision: Precision of the encoder.
        decoder_precision: Precision of `decoder_init` and `decoder_with_past`.
        op_kinds: Operations that int8 and int4 quantise: constant matrix products, and the embeddings of an output
            projection or of a vocabulary.
        keep_float32: Patterns (`fnmatch`) of modules that stay float32, for example `decoder.lm_head` or
            `*.layers.0.*`.
        block_size: Number of weights that share a scale; int4 only.
        accuracy_level: Level of `MatMulNBits`: 4 multiplies in int8, 1 in float32, 0 leaves the choice to ONNX Runtime.

    Raises:
        ExportError: Values are unknown, or pairs of values are not supported; all of them are listed.
    """

    precision: Precision = "fp32"
    target: Target = "cpu"
    encoder_precision: Precision | None = None
    decoder_precision: Precision | None = None
    op_kinds: tuple[OpKind, ...] = get_args(OpKind)
    keep_float32: tuple[str, ...] = ()
    block_size: _BlockSize = 32
    accuracy_level: _AccuracyLevel = 4

    def __post_init__(self) -> None:
        """Check all values, then all pairs of values that are not supported."""
        if found := problems(self) or list(self._impossible()):
            raise ExportError(f"precision: {'; '.join(found)}")

    def of(self, graph: str) -> Precision:
        """The precision of `graph`, as the bundle's contract names it."""
        if graph == ENCODER:
            return self.encoder_precision or ("int8" if self.precision == "int4" else self.precision)
        return self.decoder_precision or self.precision

    @property
    def encoder_in_bytes(self) -> bool:
        """Whether the encoder is traced to be quantised."""
        return self.of(ENCODER) in ("int8", "int4") and "matmul" in self.op_kinds

    @property
    def below_float32(self) -> bool:
        """Whether any graph is smaller than float32."""
        return any(precision != "fp32" for precision in self._given())

    @property
    def halves(self) -> bool:
        """Whether any graph is fp16; all others are float32 then."""
        return "fp16" in self._given()

    @property
    def quantises_explicitly(self) -> bool:
        """Whether any graph is int8 that an engine makes of standard ONNX; all others are float32 then."""
        return self.target == "tensorrt" and "int8" in self._given()

    def _given(self) -> tuple[Precision, Precision]:
        return self.encoder_precision or self.precision, self.decoder_precision or self.precision

    def _impossible(self) -> Iterator[str]:
        for precision in sorted({self.precision, *self._given()}):
            if reason := _REFUSED.get((precision, self.target)):
                yield f"{precision} for {self.target}: {reason}"
        if self.halves and self.quantises_explicitly:
            yield "fp16 and int8 in one bundle: each is measured beside float32 only; take fp32 for one side"
        if self.halves and self.op_kinds != get_args(OpKind):
            yield "op_kinds goes with int8 and int4; keep modules out of fp16 with keep_float32"
        elif self.below_float32 and not self.op_kinds:
            yield "op_kinds is empty: nothing would be quantised; name at least one, or take fp32"
        if self.keep_float32 and not self.below_float32:
            yield "keep_float32 goes with a precision below fp32: everything is float32 already"
