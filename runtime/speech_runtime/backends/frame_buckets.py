"""Sizes that encoder frames are padded to where steps are recorded as CUDA graphs: few sizes, so few recordings."""

_LEAST = 16


def held_frames(frames: int) -> int:
    """Return the smallest of 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, … that is at least `frames`: four per octave."""
    step = max(_LEAST, 1 << max(frames - 1, 1).bit_length() - 1) // 4
    return max(_LEAST, -(-frames // step) * step)
