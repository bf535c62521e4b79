"""Sizes of steps that are recorded as CUDA graphs: how many, and which frames of audio share one."""

from ...bundle.loading import Bundle
from ...errors import EngineError

_DEFAULT = 64
"""Sizes of batch, beams and audio: one utterance of up to 30 s has about 20, and a few numbers of utterances occur."""

_FIXED_SHAPES = ("static", "tree")
"""Caches whose steps have shapes that stay the same."""

_SMALLEST_BUCKET = 16


def recorded_sizes(bundle: Bundle, cuda_graphs: int | None) -> int:
    """Return the number of sizes whose steps are recorded.

    Args:
        bundle: Bundle with the decoder.
        cuda_graphs: Requested number; None for the default, which is 0 where steps cannot be recorded.

    Raises:
        EngineError: A number is requested, and shapes change from step to step.
    """
    fixed = bundle.manifest.decoder.cache in _FIXED_SHAPES
    if cuda_graphs is None:
        return _DEFAULT if fixed else 0
    if cuda_graphs and not fixed:
        remedy = "with --static-cache TOKENS"
        if bundle.manifest.target == "cuda":
            remedy = "without --growing-cache (ProphetNet's cache always grows)"
        raise EngineError(
            f"cuda_graphs is {cuda_graphs}, and the cache of {bundle.directory} grows from step to step, which CUDA "
            f"graphs cannot record; export the model again {remedy}, or leave cuda_graphs out"
        )
    return cuda_graphs


def frame_bucket(frames: int) -> int:
    """Return the number of encoder frames to pad to, so that few sizes are recorded.

    It is the smallest of 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, … that is at least `frames`: four per octave.
    """
    step = max(_SMALLEST_BUCKET, 1 << max(frames - 1, 1).bit_length() - 1) // 4
    return max(_SMALLEST_BUCKET, -(-frames // step) * step)
