"""Modules replaced by faster equals while a model is traced."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_ROUNDING = 1e-3


@dataclass(frozen=True)
class Replacement:
    """A module that says what another one says, and an `example` to show it on."""

    module: nn.Module
    example: Tensor


@contextmanager
def replaced(model: nn.Module, *rules: Callable[[nn.Module], Replacement | None]) -> Iterator[None]:
    """Within this context, what `rules` know of `model` is replaced.

    Rules go by the parts that a module has. One that has the parts and does something else with them, in a family that
    nobody has seen, is left as it is: it does not say the same of the example.
    """
    with ExitStack() as undo:
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                for rule in rules:
                    replacement = rule(child)
                    if replacement is not None and _equal(child, replacement):
                        setattr(parent, name, replacement.module.eval())
                        undo.callback(setattr, parent, name, child)
        yield


def _equal(module: nn.Module, replacement: Replacement) -> bool:
    with torch.no_grad():
        expected, found = module(replacement.example.clone()), replacement.module.eval()(replacement.example.clone())
    if expected.shape != found.shape:
        return False
    return bool((expected - found).abs().max() <= _ROUNDING * expected.abs().max())
