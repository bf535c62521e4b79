"""Which attention function a model calls, for as long as it is traced."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import PreTrainedModel


@contextmanager
def attention_implementation(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Within this context `model` calls the attention function that is registered as `name`, if it can call another.

    `set_attn_implementation` sets the configuration of the model. A composite gives its encoder a new one, and the
    layers of most speech encoders keep the one that they were made with.
    """
    before = model.config._attn_implementation
    model.set_attn_implementation(name)
    name = model.config._attn_implementation
    kept: list[tuple[Any, str]] = []
    for module in model.modules():
        config: Any = getattr(module, "config", None)
        if type(config) is type(model.config) and config._attn_implementation != name:
            kept.append((config, config._attn_implementation))
            config._attn_implementation = name
    try:
        yield
    finally:
        for config, implementation in kept:
            config._attn_implementation = implementation
        model.set_attn_implementation(before)
