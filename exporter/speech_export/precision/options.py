"""Which numbers a bundle computes with: the options behind `--precision` and `--target`, checked when they are made."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from speech_runtime.bundle.graph_io import ENCODER

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
"""Pairs that cannot be had, and what to do instead."""

_BLOCK_SIZES = (16, 32, 64, 128, 256)
_ACCURACY_LEVELS = (0, 1, 4)


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
        precision: of all graphs, where nothing else is said.
        target: what the graphs are to run on.
        encoder_precision: of the encoder.
        decoder_precision: of `decoder_init` and `decoder_with_past`.
        op_kinds: what int8 and int4 quantise: constant matrix products, and the embedding of an output projection or of
            a vocabulary.
        keep_float32: patterns (`fnmatch`) of modules that stay float32, as `decoder.lm_head` or `*.layers.0.*`.
        block_size: weights that share a scale; int4 only.
        accuracy_level: of `MatMulNBits`: 4 multiplies in int8, 1 in float32, 0 leaves the choice to ONNX Runtime.

    Raises:
        ExportError: a value that is unknown, or a pair that cannot be had; all of them are listed.
    """

    precision: Precision = "fp32"
    target: Target = "cpu"
    encoder_precision: Precision | None = None
    decoder_precision: Precision | None = None
    op_kinds: tuple[OpKind, ...] = get_args(OpKind)
    keep_float32: tuple[str, ...] = ()
    block_size: int = 32
    accuracy_level: int = 4

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        problems = list(self._unknown()) or list(self._impossible())
        if problems:
            raise ExportError(f"precision: {'; '.join(problems)}")

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

    def _unknown(self) -> Iterator[str]:
        choices: tuple[tuple[str, object, tuple[object, ...]], ...] = (
            ("precision", self.precision, get_args(Precision)),
            ("target", self.target, get_args(Target)),
            ("encoder_precision", self.encoder_precision, (*get_args(Precision), None)),
            ("decoder_precision", self.decoder_precision, (*get_args(Precision), None)),
            ("block_size", self.block_size, _BLOCK_SIZES),
            ("accuracy_level", self.accuracy_level, _ACCURACY_LEVELS),
            *(("op_kinds", kind, get_args(OpKind)) for kind in self.op_kinds),
        )
        for name, value, known in choices:
            if value not in known:
                choose_from = ", ".join(str(choice) for choice in known if choice is not None)
                yield f"{name} is {value!r}, known are {choose_from}"

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
