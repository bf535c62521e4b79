"""Replace torch operations that trace badly, while a model's `forward` runs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class TraceableOperations(TorchFunctionMode):
    """Replaces operations by equivalents whose shapes do not depend on data, nor their values on the precision.

    Enter it inside the traced `forward`: torch.export has a mode of its own around that, which comes first.

    - `hidden_states[~mask] = 0` becomes a `torch.where`, instead of NonZero, which TensorRT refuses.
    - `mask.unsqueeze(-1).repeat(1, 1, width)` becomes an `expand`, instead of Tile, which copies one boolean at a time.
    - `torch.div(lengths, stride, rounding_mode="floor")` of integers becomes `//`, instead of a float division, which
      is wrong in half precision: 749 frames become 750.
    """

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if function is Tensor.__setitem__ and _is_boolean_mask(args[1]):
            target, mask, value = args
            return target.copy_(torch.where(mask, torch.as_tensor(value, dtype=target.dtype), target))
        if function is Tensor.repeat and _is_boolean_column(args[0]) and args[1:3] == (1, 1):
            return args[0].expand(-1, -1, *args[3:])
        if function is torch.div and kwargs.get("rounding_mode") == "floor" and _is_integer(args[0]):
            return args[0] // args[1]
        return function(*args, **kwargs)


def _is_boolean_mask(index: object) -> bool:
    return isinstance(index, Tensor) and index.dtype == torch.bool


def _is_boolean_column(mask: Tensor) -> bool:
    return _is_boolean_mask(mask) and mask.ndim == 3 and mask.shape[2] == 1


def _is_integer(number: object) -> bool:
    return isinstance(number, int) or (isinstance(number, Tensor) and not number.is_floating_point())
