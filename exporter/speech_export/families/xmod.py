"""X-MOD has an adapter for each language; a traced decoder has only the one of its default language."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from ..errors import ExportError
from .registry import DecoderFamily, register_decoder


@contextmanager
def one_language(decoder: PreTrainedModel) -> Iterator[None]:
    """Within this context, all rows go through one adapter.

    transformers selects the rows of each adapter with boolean masks, whose sizes depend on data.
    """
    language = decoder.config.default_language
    if language is None:
        raise ExportError(
            "this X-MOD has no default_language, so transformers cannot run it in a composite; set one with "
            f"decoder.set_default_language(), one of {', '.join(decoder.config.languages)}"
        )
    outputs = [layer.output for layer in decoder.roberta.encoder.layer]
    for output in outputs:
        output.lang_adapter = partial(_adapted, output, language)
    try:
        yield
    finally:
        for output in outputs:
            del output.lang_adapter


def _adapted(output: Any, language: str, _: Tensor, hidden_states: Tensor) -> Tensor:
    normalised = hidden_states
    if output.adapter_layer_norm is not None:
        normalised = output.adapter_layer_norm(hidden_states)
    elif output.adapter_reuse_layer_norm:
        normalised = output.LayerNorm(hidden_states)
    residual = normalised if output.ln_before_adapter else hidden_states
    adapted: Tensor = output.adapter_modules[language](normalised)
    return adapted + residual


register_decoder(DecoderFamily(rewrite=one_language), "xmod")
