"""Writes the configuration files, the feature extractor and the tokenizer of a bundle."""

import logging
import os
from pathlib import Path
from typing import Any

from speech_runtime import GenerationConfig, SpeechError
from speech_runtime.audio.features import EXTRACTORS, check_fit, read_feature_extractor
from speech_runtime.bundle.manifest import CONFIG, GENERATION_CONFIG, PREPROCESSOR_CONFIG, TOKENIZER
from speech_runtime.bundle.model_facts import DecoderFacts, EncoderFacts
from speech_runtime.generation.config import DEFAULT_NEW_TOKENS
from speech_runtime.generation.likelihood import wrong_label_tokens

from ..errors import ExportError, reason
from ..sources.composite import Composite
from ..tokenizers.runtime_tokenizer import check_tokenizer, runtime_tokenizer
from .generation_settings import write_settings

logger = logging.getLogger(__name__)


def write_configuration(
    composite: Composite,
    encoder: EncoderFacts,
    decoder: DecoderFacts,
    directory: Path,
    max_length: int | None = None,
) -> None:
    """Write all files but the graphs, and let the runtime read them, so that it refuses a model before tracing.

    Args:
        composite: Model to export.
        encoder: Facts of its encoder, which the feature extractor must fit.
        decoder: Facts of its decoder, which token ids must fit.
        directory: Directory of the new bundle.
        max_length: Maximal length of a sequence in tokens; by default the checkpoint's.

    Raises:
        ExportError: A file does not fit the model, or the runtime does not support it.
    """
    for name, token in wrong_label_tokens(vars(composite.config)).items():
        raise ExportError(
            f"{CONFIG} of {composite.source}: {name} is {token!r}, it must be a token id; correct it there"
        )
    try:
        composite.config.save_pretrained(directory)
        path = directory / GENERATION_CONFIG
        without_length = write_settings(composite.model.generation_config, decoder, path, max_length)
        settings = GenerationConfig.from_file(path, decoder.vocabulary)
        settings.start_token_ids(1)
        _write_feature_extractor(composite.feature_extractor, encoder, directory)
    except SpeechError as error:
        message = str(error).replace(f"{directory}{os.sep}", "")  # The directory is gone when the user reads this.
        raise ExportError(f"the runtime does not take this model ({composite.source}): {message}") from error
    except (ValueError, TypeError) as error:  # transformers cannot write the configuration.
        raise ExportError(f"the model's configuration cannot be written: {reason(error)}") from error
    if without_length and not composite.is_random:
        logger.warning(
            "%s sets no max_length: a text may have up to %d tokens, as many as the decoder takes (transformers cuts "
            "it after %d). --max-length sets another length.",
            composite.source,
            settings.max_length,
            DEFAULT_NEW_TOKENS,
        )
    if composite.tokenizer is not None:
        check_tokenizer(composite.tokenizer, decoder.vocab_size)
        composite.tokenizer.save_pretrained(directory)
        runtime_tokenizer(composite.tokenizer).save(str(directory / TOKENIZER))


def _write_feature_extractor(extractor: Any | None, encoder: EncoderFacts, directory: Path) -> None:
    """Write the extractor if the runtime knows its class; the runtime refuses settings that it does not support."""
    kind = type(extractor).__name__
    if extractor is None:
        return
    if kind not in EXTRACTORS:
        logger.warning("The runtime does not know %s: the bundle takes ready-made features, not audio.", kind)
        return
    extractor.save_pretrained(directory)
    check_fit(read_feature_extractor(directory / PREPROCESSOR_CONFIG), encoder)
