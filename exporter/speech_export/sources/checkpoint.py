"""Load a fine-tuned checkpoint: a composite, of torch or of Flax, or a speech model with a decoder of its own."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, Unpack

from transformers import GenerationConfig, PreTrainedModel, SpeechEncoderDecoderModel
from transformers.utils import GENERATION_CONFIG_NAME, cached_file

from speech_runtime.bundle.manifest import MANIFEST
from speech_runtime.bundle.safe_files import is_there
from speech_runtime.paths import expanded

from ..errors import ExportError
from ..families import check_not_refused
from .adapter_merging import merge_adapter
from .adapters import base_and_adapter
from .composite import Composite, source_name
from .hub import (
    DEFAULT_HUB,
    HubOptions,
    check_source,
    load,
    load_config,
    load_parts,
    read_settings,
)
from .language_adapters import choose_language
from .legacy.flax import find_flax_weights, load_flax
from .legacy.speech2text2 import renamed_weights, speech2text2_config
from .native import is_native, load_native, native_composite
from .other_architectures import nearest, what_it_is
from .special_tokens import TokenIds, complete_special_tokens, override_special_tokens, start_token
from .weights import load_whole

COMPOSITE = "speech-encoder-decoder"


def load_checkpoint(
    name: str,
    processor: str | None = None,
    hub: HubOptions = DEFAULT_HUB,
    without: Collection[str] = (),
    adapter: str | None = None,
    target_lang: str | None = None,
    **token_ids: Unpack[TokenIds],
) -> Composite:
    """Load a fine-tuned checkpoint: a composite, or a speech model with a decoder of its own, such as Whisper.

    Args:
        name: Directory or Hub id of the checkpoint, or of an adapter, whose base is loaded then.
        processor: Directory or Hub id of the feature extractor and tokenizer; that of the checkpoint if None.
        hub: Options for the Hub; the revision is that of `name`.
        without: `feature-extractor` or `tokenizer`, for a bundle without it; it may be missing then.
        adapter: Directory or Hub id of an adapter of peft, such as LoRA, to merge into the model.
        target_lang: Language of the encoder's adapter layers, for a checkpoint with one for each language (MMS).
        token_ids: `decoder_start_token_id`, `eos_token_id` and `pad_token_id` that replace those of the checkpoint.
            If generation_config.json has no start token either, config.json is used, then the tokenizer.

    Raises:
        ExportError: There is no such checkpoint, it is no speech encoder-decoder, an adapter does not fit it, weights
            are missing or left over, or there is no tokenizer or feature extractor.
    """
    name, processor, adapter = expanded(name), expanded(processor), expanded(adapter)
    check_source(name, hub)
    if is_there(Path(name) / MANIFEST):
        raise ExportError(f"{name} is a bundle already; give the checkpoint that it was exported from")
    name, hub, merged = base_and_adapter(name, adapter, hub)
    settings = read_settings(name, hub)
    _check_halves(name, settings)
    config = speech2text2_config(settings) or load_config(name, hub)
    check_not_refused(config)
    if config.model_type != COMPOSITE and not is_native(config):
        raise ExportError(
            f"{name} is a {what_it_is(config)}, not a {COMPOSITE}: {nearest(config)}; speech-export --list-families "
            "names all"
        )
    _check_generation_config(name, hub)
    extractor, tokenizer = load_parts(processor or name, processor or name, hub, without)
    source = source_name(name, merged.name if merged else None, target_lang)
    native: PreTrainedModel | None = None
    if is_native(config):
        native = load_native(name, config, hub)
        composite = native_composite(native, extractor, tokenizer, source)
    elif flax_weights := find_flax_weights(name, hub):
        composite = Composite(load_flax(name, flax_weights, config, hub), extractor, tokenizer, source)
    else:
        model = load_whole(SpeechEncoderDecoderModel, name, config, hub, renamed_weights(config))
        composite = Composite(model, extractor, tokenizer, source)
    choose_language(composite.model.encoder, name, target_lang, hub)
    if merged is not None:
        merge_adapter(composite.model, merged, (name,), native=native)
    stored = composite.model.generation_config
    if start_token(stored) is None:
        decoder = config.get_text_config(decoder=True) if is_native(config) else config.decoder
        complete_special_tokens(stored, name, token_ids, (stored, config, decoder), tokenizer)
    else:
        override_special_tokens(stored, token_ids)
    return composite


def _check_halves(name: str, settings: dict[str, Any]) -> None:
    """Check that the configuration of a composite has both halves: transformers fills a missing one with defaults."""
    if settings.get("model_type") != COMPOSITE:
        return
    for half in ("encoder", "decoder"):
        if not isinstance(settings.get(half), dict):
            raise ExportError(
                f"{name}: its config.json has no {half}, and a {COMPOSITE} has an encoder and a decoder; save it again "
                "with save_pretrained"
            )


def _check_generation_config(name: str, hub: HubOptions) -> None:
    """Check that generation settings can be read if there are any: transformers would silently ignore the file."""
    if cached_file(name, GENERATION_CONFIG_NAME, **hub.keywords(), _raise_exceptions_for_missing_entries=False):
        load(GenerationConfig, name, f"generation settings ({GENERATION_CONFIG_NAME})", hub)
