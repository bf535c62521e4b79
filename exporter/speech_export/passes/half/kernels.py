"""What the half-precision kernels of a target do, where targets differ."""

from dataclasses import dataclass

from ...precision.options import Target

CONTRIB = "com.microsoft"
"""Domain of the operators that only ONNX Runtime knows."""


@dataclass(frozen=True)
class HalfKernels:
    """The half-precision kernels of a target.

    Attributes:
        float32_sums: Operators that sum in float32 though all they read and write is float16.
        contrib: Operators of ONNX Runtime alone that have a kernel for float16.
        grouped_convolutions: True if a convolution with groups has a kernel for float16.
    """

    float32_sums: frozenset[str] = frozenset()
    contrib: frozenset[str] = frozenset()
    grouped_convolutions: bool = True


STANDARD = HalfKernels()
"""Nothing is assumed: for TensorRT."""

CUDA = HalfKernels(
    float32_sums=frozenset({"LayerNormalization"}),
    contrib=frozenset({"SkipLayerNormalization"}),
    # cuDNN finds no plan for the positional convolution of Wav2Vec2 and its relatives (1024 channels in 16 groups):
    # CUDNN_FE failure 8, HEURISTIC_QUERY_FAILED. In float32 it has one, and the result is the same even in TF32, which
    # holds every float16: both add in float32.
    grouped_convolutions=False,
)
"""ONNX Runtime 1.31."""


def half_kernels(target: Target) -> HalfKernels:
    """Return the half-precision kernels of a target."""
    return CUDA if target == "cuda" else STANDARD
