"""Settings of transformers that this runtime has not: those that change nothing here, and those that are refused."""

from collections.abc import Mapping
from typing import Any

from ..errors import GenerationError

_LEFT_OUT: dict[str, tuple[str, object]] = {
    "assistant_early_exit": ("assisted generation", None),
    "constraints": ("constrained beam search", None),
    "diversity_penalty": ("group beam search", 0.0),
    "dola_layers": ("DoLa decoding", None),
    "force_words_ids": ("constrained beam search", None),
    "guidance_scale": ("classifier-free guidance", 1.0),
    "low_memory": ("sequential beam search", False),
    "num_beam_groups": ("group beam search", 1),
    "penalty_alpha": ("contrastive search", 0.0),
    "prompt_lookup_num_tokens": ("assisted generation", None),
    "token_healing": ("prompts that end within a word", False),
    "watermarking_config": ("watermarking", None),
}
"""Settings of transformers that are not followed, what they are for, and the value at which they change nothing."""

_WITHOUT_EFFECT = frozenset(
    {
        *("use_cache", "cache_implementation", "cache_config", "compile_config", "disable_compile"),
        *("output_attentions", "output_hidden_states", "output_scores", "output_logits", "return_dict_in_generate"),
        *("encoder_repetition_penalty", "encoder_no_repeat_ngram_size"),  # of text that is the encoder's input
        *("transformers_version", "_from_model_config"),
        *("assistant_confidence_threshold", "assistant_ensemble_weight", "assistant_lookbehind", "is_assistant"),
        *("max_matching_ngram_size", "num_assistant_tokens", "num_assistant_tokens_schedule", "speculation_type"),
        *("target_lookbehind", "use_mtp", "continuous_batching_config", "max_cache_len", "prefill_chunk_size"),
    }
)
"""Settings that cannot change the token ids of these searches."""

_MINUS_ONE_IS_NONE = frozenset({"eos_token_id", "pad_token_id"})
"""Token ids that some checkpoints write as -1 for none; to transformers too it is a token that never comes."""


def followed(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that this runtime has, in its own form, without those that change nothing here.

    Raises:
        GenerationError: a setting asks for a search that this runtime does not have.
    """
    bias = given.get("sequence_bias")
    if isinstance(bias, Mapping):  # transformers takes both, and writes a list
        given = {**given, "sequence_bias": list(bias.items())}
    given = {
        name: None if name in _MINUS_ONE_IS_NONE and _equals(value, -1) else value for name, value in given.items()
    }
    left_out = [
        f"{name} is for {purpose}, which this runtime does not do; leave it out"
        for name, (purpose, neutral) in _LEFT_OUT.items()
        if name in given and given[name] is not None and not _equals(given[name], neutral)
    ]
    if left_out:
        raise GenerationError("; ".join(left_out))
    return {name: value for name, value in given.items() if name not in _WITHOUT_EFFECT and name not in _LEFT_OUT}


def _equals(value: Any, constant: object) -> bool:
    """Whether a value of any kind is a number or None; arrays, which compare item by item, are none."""
    return not getattr(value, "ndim", 0) and bool(value == constant)
