"""The format chunk of WAV and Wave64, whose fields say the same thing more than once."""

from typing import Literal

from .damage import CONVERT, DamagedError

FORMAT_BYTES = 26
"""Of the chunk, what is looked at: up to the format that an extensible one has in its extension."""

_EXTENSIBLE = 0xFFFE
_LINEAR = {1: "PCM", 3: "floating-point"}
_COMPANDED = {6: "A-law", 7: "mu-law"}


def check_format(content: bytes, order: Literal["little", "big"]) -> None:
    """Check that the size of a frame is that of its samples, where each is stored by itself.

    libsndfile believes the bits; where they are wrong, it hears noise.

    Raises:
        DamagedError: names the fields.
    """
    if len(content) < 16:
        return
    tag, channels, align, bits = (int.from_bytes(content[i : i + 2], order) for i in (0, 2, 12, 14))
    if tag == _EXTENSIBLE and len(content) == FORMAT_BYTES:
        tag = int.from_bytes(content[24:26], order)
    kind = _LINEAR.get(tag) or _COMPANDED.get(tag)
    if kind is None:
        return
    sample_bytes = -(-bits // 8)
    if tag in _COMPANDED and bits != 8:
        problem = f"{kind} of {bits} bits, which has 8"
    elif align != channels * sample_bytes:
        problem = f"{kind} of {channels} × {bits} bits in frames of {align} bytes (block align)"
    else:
        return
    raise DamagedError(
        f"has a header that contradicts itself: {problem}; convert it again from its original, for example with: "
        f"{CONVERT}"
    )
