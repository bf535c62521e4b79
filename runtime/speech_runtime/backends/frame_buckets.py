"""Sizes that encoder frames are padded to where steps are recorded: few sizes, so that few recordings are needed."""

_SMALLEST = 16


def frame_bucket(frames: int) -> int:
    """Return the smallest of 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, … that holds `frames`: four sizes an octave."""
    step = max(_SMALLEST, 1 << max(frames - 1, 1).bit_length() - 1) // 4
    return max(_SMALLEST, -(-frames // step) * step)
