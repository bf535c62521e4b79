"""Language adapters of a Wav2Vec2 encoder, as in MMS: small layers that are stored once for each language.

transformers loads them into `Wav2Vec2ForCTC` only (`load_adapter`), whose encoder is `wav2vec2`.
"""

import logging
import re
from contextlib import suppress
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from transformers import PreTrainedModel
from transformers.models.wav2vec2.modeling_wav2vec2 import WAV2VEC2_ADAPTER_PT_FILE, WAV2VEC2_ADAPTER_SAFE_FILE

from speech_runtime.bundle.safe_files import is_directory

from ..errors import ExportError, shortened
from .directories import CONFIG_FILES
from .hub import HubOptions, find_file
from .tensor_file import read_tensors

logger = logging.getLogger(__name__)

_FILES = (WAV2VEC2_ADAPTER_SAFE_FILE, WAV2VEC2_ADAPTER_PT_FILE)
_OF_A_LANGUAGE = re.compile(r"adapter\.([\w-]+)\.(?:safetensors|bin)")
_LAYER = ".adapter_layer."
_HEAD = "lm_head."
"""Head of a CTC model, which a composite does not have."""


def choose_language(encoder: PreTrainedModel, name: str, language: str | None, hub: HubOptions) -> list[str]:
    """Load the adapter of a language into an encoder; without a language, warn if there are several to choose from.

    Args:
        encoder: Encoder to change.
        name: Directory or Hub id of its checkpoint, with `adapter.LANGUAGE.safetensors` or `.bin`.
        language: Code such as "fra"; None to keep the adapter among the encoder's weights.
        hub: Options for the Hub.

    Returns:
        Names of the encoder's weights that were loaded.

    Raises:
        ExportError: The encoder has no adapter layers, there is no such language, or its file is damaged or does not
            fit.
    """
    has_layers = getattr(encoder.config, "adapter_attn_dim", None) is not None
    if language is None:
        if has_layers and (languages := _languages(name, hub)):
            logger.warning(
                "%s keeps the language that is stored among its weights; --target-lang (target_lang) chooses one of "
                "its adapters: %s.",
                name,
                shortened(languages, 20),
            )
        return []
    if not has_layers:
        raise ExportError(
            f"--target-lang {language}: {name} has no language adapters (adapter_attn_dim is not set in its "
            "config.json); leave it out"
        )
    weights = read_tensors(_file_of(name, language, hub), f"the language {language} of {name}")
    found = {
        key.removeprefix(f"{encoder.base_model_prefix}."): tensor
        for key, tensor in weights.items()
        if not key.startswith(_HEAD)
    }
    expected = {key: tensor.shape for key, tensor in encoder.state_dict().items() if _LAYER in key}
    wrong = sorted(
        key for key in found.keys() | expected.keys() if key not in found or found[key].shape != expected.get(key)
    )
    if wrong:
        raise ExportError(
            f"the language {language} of {name} does not fit the encoder: {len(wrong)} weights are missing, left over "
            f"or of another shape: {shortened(wrong)}; take the file that belongs to this checkpoint"
        )
    encoder.load_state_dict(found, strict=False)
    return list(found)


def _file_of(name: str, language: str, hub: HubOptions) -> Path:
    if _OF_A_LANGUAGE.fullmatch(WAV2VEC2_ADAPTER_SAFE_FILE.format(language)):
        for file in _FILES:
            if path := find_file(name, file.format(language), hub):
                return path
    known = shortened(_languages(name, hub), 1000) or f"none ({WAV2VEC2_ADAPTER_SAFE_FILE.format('LANGUAGE')})"
    raise ExportError(f"--target-lang {language}: {name} has no adapter of that language; it has {known}")


def _languages(name: str, hub: HubOptions) -> list[str]:
    """Return the languages of a checkpoint; for one on the Hub that cannot be asked, those in the cache."""
    files: list[str] = []
    if not is_directory(name) and not hub.offline:
        with suppress(HfHubHTTPError, OSError):
            files = HfApi(token=hub.token).list_repo_files(name, revision=hub.revision)
    if not files and (config := find_file(name, CONFIG_FILES[0], hub)):
        files = [path.name for path in config.parent.iterdir()]
    return sorted({match[1] for file in files if (match := _OF_A_LANGUAGE.fullmatch(file))})
