"""How many frames there is room for where steps are recorded: few numbers, so that few sizes are recorded."""

_LEAST = 16


def held_frames(frames: int) -> int:
    """The least of 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, … that holds them: four numbers an octave."""
    step = max(_LEAST, 1 << max(frames - 1, 1).bit_length() - 1) // 4
    return max(_LEAST, -(-frames // step) * step)
