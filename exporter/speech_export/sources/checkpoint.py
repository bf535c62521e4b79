"""A fine-tuned composite checkpoint, of torch or of Flax."""

from collections.abc import Collection
from pathlib import Path

from transformers import GenerationConfig, PretrainedConfig, SpeechEncoderDecoderModel
from transformers.utils import GENERATION_CONFIG_NAME, cached_file

from speech_runtime.bundle.manifest import MANIFEST
from speech_runtime.bundle.safe_files import is_there

from ..errors import ExportError, shortened
from .adapters import refuse_adapters
from .composite import Composite
from .hub import (
    ANONYMOUS,
    HubOptions,
    check_directory,
    load,
    load_config,
    load_extractor,
    load_tokenizer,
    read_settings,
)
from .legacy.flax import find_flax_weights, load_flax
from .legacy.speech2text2 import load_speech2text2_config, renamed_weights
from .weights import load_weights

COMPOSITE = "speech-encoder-decoder"


def load_checkpoint(
    name: str, processor: str | None = None, hub: HubOptions = ANONYMOUS, without: Collection[str] = ()
) -> Composite:
    """Load a fine-tuned composite checkpoint.

    Args:
        name: directory or Hub id.
        processor: directory or Hub id of the feature extractor and tokenizer; `name` itself where it is None.
        hub: how to reach the Hub.
        without: `feature-extractor` or `tokenizer`, where the bundle is to do without; both may be missing then.

    Raises:
        ExportError: nothing there, not a composite, adapters beside it, weights that are missing or left over,
            or no tokenizer or extractor.
    """
    check_directory(name)
    if is_there(Path(name) / MANIFEST):
        raise ExportError(f"{name} is a bundle already; give the checkpoint that it was exported from")
    refuse_adapters(name, hub)
    _check_halves(name, hub)
    config = load_speech2text2_config(name, hub) or load_config(name, hub)
    if config.model_type != COMPOSITE:
        raise ExportError(
            f"{name} is a {config.model_type} model ({_architecture(config)}), not a {COMPOSITE}; to join it with "
            "another one, give --encoder and --decoder"
        )
    _check_generation_config(name, hub)
    flax_weights = find_flax_weights(name, hub)
    model = load_flax(name, flax_weights, config, hub) if flax_weights else _load_torch(name, config, hub)
    parts = processor or name
    return Composite(model, load_extractor(parts, hub, without), load_tokenizer(parts, hub, without), name)


def _load_torch(name: str, config: PretrainedConfig, hub: HubOptions) -> SpeechEncoderDecoderModel:
    model, missing = load_weights(SpeechEncoderDecoderModel, name, config, hub, renamed_weights(config))
    if missing:
        raise ExportError(
            f"{name} lacks {len(missing)} of the model's weights: {shortened(missing)}; "
            "save it again with save_pretrained"
        )
    return model


def _check_halves(name: str, hub: HubOptions) -> None:
    """Check that the configuration of a composite has both halves: transformers makes up one that is missing."""
    settings = read_settings(name, hub)
    if settings.get("model_type") != COMPOSITE:
        return
    for half in ("encoder", "decoder"):
        if not isinstance(settings.get(half), dict):
            raise ExportError(
                f"{name}: its config.json has no {half}, and a {COMPOSITE} is made of both halves; save it again with "
                "save_pretrained"
            )


def _check_generation_config(name: str, hub: HubOptions) -> None:
    """Check that generation settings can be read where there are any: transformers would go on without them."""
    if cached_file(name, GENERATION_CONFIG_NAME, **hub.keywords(), _raise_exceptions_for_missing_entries=False):
        load(GenerationConfig, name, f"generation settings ({GENERATION_CONFIG_NAME})", hub)


def _architecture(config: PretrainedConfig) -> str:
    return ", ".join(config.architectures or [type(config).__name__])
