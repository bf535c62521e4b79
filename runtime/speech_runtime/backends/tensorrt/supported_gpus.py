"""GPUs that TensorRT-RTX supports, by compute capability. TensorRT itself supports data-center GPUs too."""

RTX_GPUS = "8.0, 8.6, 8.9, 12.0 and later"
"""Compute capabilities on which engines of TensorRT-RTX run, unless they were built for certain ones; for messages.

Those between, 9.0 (Hopper) and 10.x and 11.x, are not among them: https://docs.nvidia.com/deeplearning/tensorrt-rtx/
"""

_RTX_LISTED = ((8, 0), (8, 6), (8, 9))
_RTX_FROM = (12, 0)
_RTX_BY_REQUEST = (7, 5)
"""Turing, on which only engines run that were built for it alone."""


def runs_rtx_engines(compute_capability: str) -> bool:
    """Return true if engines of TensorRT-RTX that were built for no GPU in particular run on such a GPU."""
    number = _numbers(compute_capability)
    return number in _RTX_LISTED or number >= _RTX_FROM


def rtx_refusal(compute_capability: str) -> str:
    """Return why TensorRT-RTX cannot be used on such a GPU; empty if it can.

    Args:
        compute_capability: Compute capability of a GPU, "9.0" for example.
    """
    if runs_rtx_engines(compute_capability) or _numbers(compute_capability) == _RTX_BY_REQUEST:
        return ""
    return (
        f"TensorRT-RTX does not support GPUs of compute capability {compute_capability}, only those of {RTX_GPUS}, and "
        f"{'.'.join(map(str, _RTX_BY_REQUEST))} with engines built for it"
    )


def _numbers(compute_capability: str) -> tuple[int, ...]:
    return tuple(int(number) for number in compute_capability.split("."))
