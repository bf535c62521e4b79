"""Replace modules by faster equivalents while a model is traced."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_ROUNDING = 1e-3


@dataclass(frozen=True)
class Replacement:
    """A module that computes the same as the one it replaces, and an `example` input to check that with."""

    module: nn.Module
    example: Tensor


@contextmanager
def replaced(model: nn.Module, *rules: Callable[[nn.Module], Replacement | None]) -> Iterator[None]:
    """Within this context, the modules of `model` that `rules` recognise are replaced.

    Rules recognise a module by its submodules. A module of an unknown family may have the same ones and use them
    differently; it is left as it is, since its output for the example differs.
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
