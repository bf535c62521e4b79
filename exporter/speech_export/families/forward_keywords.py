"""Change the keywords that a module's `forward` is called with."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

Keywords = dict[str, Any]


@contextmanager
def forward_keywords(module: nn.Module, change: Callable[[Keywords], Keywords]) -> Iterator[None]:
    """Within this context, `module` is called with what `change` makes of the keywords of a call."""

    def changed(_: nn.Module, arguments: tuple[Any, ...], keywords: Keywords) -> tuple[tuple[Any, ...], Keywords]:
        return arguments, change(keywords)

    hook = module.register_forward_pre_hook(changed, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
