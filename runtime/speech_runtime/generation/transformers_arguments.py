"""Arguments of transformers' `generate` that are not settings: its GenerationConfig, and what has no place here."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Protocol

from ..dataclass_json import shown
from ..errors import GenerationError
from .config import GenerationConfig


class TransformersConfig(Protocol):
    """The part of transformers' GenerationConfig that is used."""

    def to_diff_dict(self) -> dict[str, Any]:
        """Return the settings that differ from transformers' defaults."""


GenerationConfigLike = GenerationConfig | TransformersConfig | Mapping[str, Any]
"""Settings of a call in one object: ours, transformers', or a dictionary."""

_REFUSED = {
    "assistant_model": "assisted generation is not supported; leave it out",
    **dict.fromkeys(
        ("chunk_length_s", "stride_length_s"), "a recording is transcribed as a whole; cut it into pieces, in pauses"
    ),
    "custom_generate": "only the searches of this runtime can be run; leave it out",
    "forced_decoder_ids": "give the tokens that a text begins with as decoder_input_ids",
    "generate_kwargs": "give its settings as keywords of their own",
    "negative_prompt_ids": "classifier-free guidance is not supported; leave it out",
    "negative_prompt_attention_mask": "classifier-free guidance is not supported; leave it out",
    "output_attentions": "the exported graphs do not return attention weights; get them from transformers",
    "output_hidden_states": (
        "the exported decoder does not return its hidden states; encode() returns those of the encoder, and "
        "output_logits=True the decoder's logits"
    ),
    "prefix_allowed_tokens_fn": (
        "there is no such hook; give logits_processor=[function], which sets the scores of other tokens to -inf"
    ),
    **dict.fromkeys(
        ("return_timestamps", "return_token_timestamps", "return_segments"),
        "a text has no times and no segments; to know when something was said, transcribe the recording in pieces",
    ),
    "sampling_rate": "generate takes model input; give it to model.processor or to transcribe, with the audio",
    "synced_gpus": "a model runs in one process; leave it out",
}
"""Arguments that are refused unless they are None or False, and what there is instead."""

_WITHOUT_EFFECT = {"tokenizer"}
"""Arguments that change nothing: stop strings are found with the bundle's own tokenizer."""


_OF_OTHER_OUTPUTS = frozenset(
    {
        *("alignment_heads", "is_multilingual", "lang_to_id", "max_initial_timestamp_index", "median_filter_width"),
        *("no_timestamps_token_id", "prev_sot_token_id", "task_to_id"),
    }
)
"""Settings that Whisper's generation configs carry: facts that the bundle has already, or that only times need."""

_KEYWORDS_OF_A_CALL = ("language", "task")
"""Settings of transformers' Whisper that are keywords here."""


def without_arguments_of_transformers(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keywords of a call without those of transformers that change nothing.

    Raises:
        GenerationError: One of them asks for something that this runtime does not do.
    """
    asked = [name for name in _REFUSED if (value := keywords.get(name)) is not None and value is not False]
    if asked:
        raise GenerationError("; ".join(f"{name} is not possible: {_REFUSED[name]}" for name in asked))
    return {name: value for name, value in keywords.items() if name not in _REFUSED and name not in _WITHOUT_EFFECT}


def settings_of(given: GenerationConfigLike | None) -> dict[str, Any]:
    """Return the settings of a `generation_config` by their names, without those that are None.

    Raises:
        GenerationError: It is neither a GenerationConfig nor a dictionary, or it has a language or a task.
    """
    if given is None:
        return {}
    if isinstance(given, GenerationConfig):
        found: Mapping[str, Any] = {field.name: getattr(given, field.name) for field in fields(given)}
    elif isinstance(given, Mapping):
        found = given
    elif callable(changed := getattr(given, "to_diff_dict", None)) and not isinstance(given, type):
        found = changed()
    else:
        raise GenerationError(
            f"generation_config is {shown(given)}, it must be a GenerationConfig, of speech_runtime or of "
            "transformers, or a dictionary of settings"
        )
    settings = {name: value for name, value in found.items() if value is not None and name not in _OF_OTHER_OUTPUTS}
    if asked := [name for name in _KEYWORDS_OF_A_CALL if name in settings]:
        raise GenerationError(
            "; ".join(
                f"generation_config has {name} {shown(settings[name])}: give it as {name}=, a keyword of the call"
                for name in asked
            )
        )
    return settings
