"""Load configurations, feature extractors, tokenizers and weights of transformers from a directory or the Hub."""

from collections.abc import Collection
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig, AutoFeatureExtractor, PretrainedConfig
from transformers.utils import (
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
    cached_file,
)

from speech_runtime import BundleError
from speech_runtime.bundle.hub import check_reachable
from speech_runtime.bundle.safe_files import is_directory, similar_directory
from speech_runtime.paths import expanded

from ..errors import ExportError, reason
from .directories import CONFIG_FILES, SAVE_PRETRAINED, check_directory, missing_files
from .legacy.speech2text2 import TextTokenizer
from .tensor_file import PICKLED_CODE

FEATURE_EXTRACTOR, TOKENIZER = "feature-extractor", "tokenizer"
"""Parts that a bundle can do without."""

TORCH_WEIGHTS_NAMES = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_NAME, WEIGHTS_INDEX_NAME)
FLAX_WEIGHTS_NAME = "flax_model.msgpack"

_EXTRACTOR_FILES = ("preprocessor_config.json", "processor_config.json")
_TOKENIZER_FILES = ("tokenizer.json", "vocab*", "*.model", "*.tiktoken", "*.bpe")

_ASKS_TO_RUN_CODE = "custom code"
"""Words in the error of transformers for a checkpoint that needs code of its own."""
_NEVER_RUN = (
    "needs Python code of its own (auto_map), and speech-export never runs a checkpoint's code "
    "(trust_remote_code=False); save it again with classes of transformers, or load it in Python yourself and give the "
    "model to speech_export.export"
)


@dataclass(frozen=True)
class HubOptions:
    """Options for the Hub.

    Attributes:
        revision: Branch, tag or commit; the main branch if None.
        token: Access token for private repositories; that of `hf auth login` if None.
        cache_dir: Directory for downloads; the Hub client's own cache if None.
        offline: If true, use only files in the cache.
    """

    revision: str | None = None
    token: str | None = None
    cache_dir: str | None = None
    offline: bool = False

    def keywords(self) -> dict[str, Any]:
        """Return the options as keywords of `from_pretrained`."""
        return {
            "revision": self.revision or "main",
            "token": self.token,
            "cache_dir": expanded(self.cache_dir),
            "local_files_only": self.offline,
        }


DEFAULT_HUB = HubOptions()
"""The main branch, and the defaults of the Hub's own client."""


def check_source(name: str, hub: HubOptions) -> None:
    """Check that `name` is a directory, or that the Hub can be asked for it.

    Raises:
        ExportError: It is neither.
    """
    check_directory(name)
    if is_directory(name) or hub.offline:
        return
    try:
        check_reachable(
            name, "config.json", "a checkpoint", revision=hub.revision, token=hub.token, cache_dir=hub.cache_dir
        )
    except BundleError as error:
        raise ExportError(str(error).replace("local_files_only", "--offline")) from error


def load(
    factory: Any,
    name: str,
    what: str,
    hub: HubOptions,
    remedy: str = "",
    files: Collection[str] = (),
    **options: Any,
) -> Any:
    """Return `factory.from_pretrained(name)`; code beside the checkpoint never runs.

    Args:
        factory: Auto class, or model class.
        name: Directory or Hub id.
        what: Noun for the error, such as "a tokenizer".
        hub: Options for the Hub.
        remedy: Text that ends the error.
        files: Patterns of the files it can be made from; a directory with none of them is an error that names them.
        options: More keywords of `from_pretrained`.

    Raises:
        ExportError: The files are missing or damaged.
    """
    check_directory(name)
    try:
        return factory.from_pretrained(name, trust_remote_code=False, **hub.keywords(), **options)
    except UnpicklingError as error:
        raise ExportError(f"{name}: {what} could not be loaded: {PICKLED_CODE}") from error
    except Exception as error:  # damaged files make transformers fail anywhere
        if _ASKS_TO_RUN_CODE in str(error):
            raise ExportError(f"{name}: {what} {_NEVER_RUN}") from error
        raise ExportError(f"{name}: {what} could not be loaded {_why(name, files, error)}{remedy}") from error


def _why(name: str, files: Collection[str], error: Exception) -> str:
    if not is_directory(name):
        return f"from the Hub, and there is no directory of that name{similar_directory(Path(name))}: {reason(error)}"
    missing = missing_files(name, files) if files else ""
    return f"from this directory: {missing or reason(error)}"


class _RawConfig:
    """Reads a config.json as it is, of any model type."""

    @staticmethod
    def from_pretrained(name: str, **options: Any) -> dict[str, Any]:
        settings, _ = PretrainedConfig.get_config_dict(name, **options)
        return dict(settings)


def read_settings(name: str, hub: HubOptions) -> dict[str, Any]:
    """Return the content of a checkpoint's config.json.

    Raises:
        ExportError: It is missing or cannot be read.
    """
    settings: dict[str, Any] = load(_RawConfig, name, "a configuration", hub, SAVE_PRETRAINED, CONFIG_FILES)
    return settings


def find_file(name: str, filename: str, hub: HubOptions) -> Path | None:
    """Return a file of a checkpoint; None if it has no such file, or if the Hub does not answer."""
    try:
        found = cached_file(
            name,
            filename,
            **hub.keywords(),
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except OSError:  # loading the configuration fails in the same way, and reports it
        return None
    return Path(found) if found else None


def stores_weights(name: str, hub: HubOptions) -> bool:
    """Return whether a checkpoint has the weights of a model, of torch or of Flax."""
    return any(find_file(name, file, hub) for file in (*TORCH_WEIGHTS_NAMES, FLAX_WEIGHTS_NAME))


def load_config(name: str, hub: HubOptions) -> PretrainedConfig:
    """Load the configuration of any model.

    Raises:
        ExportError: It is missing or damaged, or of a model type that the installed transformers does not know.
    """
    try:
        config: PretrainedConfig = load(AutoConfig, name, "a configuration", hub, SAVE_PRETRAINED, CONFIG_FILES)
    except ExportError:
        settings = read_settings(name, hub)
        kind = settings.get("model_type")
        if not isinstance(kind, str) or kind in CONFIG_MAPPING or "auto_map" in settings:
            raise
        classes = settings.get("architectures")
        named = f" ({', '.join(map(str, classes))})" if isinstance(classes, list) else ""
        raise ExportError(
            f"{name} is a {kind} model{named}, which transformers {version('transformers')} does not know; install a "
            "release that does, or take a model that speech-export --list-families names"
        ) from None
    return config


def load_parts(
    extractor: str, tokenizer: str, hub: HubOptions = DEFAULT_HUB, without: Collection[str] = ()
) -> tuple[Any, Any]:
    """Load the feature extractor of a speech encoder and the tokenizer of a text decoder.

    Args:
        extractor: Directory or Hub id of the feature extractor.
        tokenizer: Directory or Hub id of the tokenizer.
        hub: Options for the Hub.
        without: `feature-extractor` or `tokenizer`; None is returned for it.

    Raises:
        ExportError: One of them is missing or damaged, or both; the error names both then.
    """
    parts: list[Any] = []
    errors: dict[str, ExportError] = {}
    wanted = {FEATURE_EXTRACTOR: (load_extractor, extractor), TOKENIZER: (load_tokenizer, tokenizer)}
    for part, (load_part, name) in wanted.items():
        try:
            parts.append(None if part in without else load_part(name, hub))
        except ExportError as error:
            errors[part] = error
    if errors:
        them = "both" if len(errors) > 1 else "it"
        raise ExportError(
            f"{'. Besides, '.join(map(str, errors.values()))}; save {them} there, name a "
            "directory with both feature extractor and tokenizer (--processor), or do without "
            f"({' '.join(f'--without {part}' for part in errors)})"
        ) from next(iter(errors.values()))
    return parts[0], parts[1]


def load_extractor(name: str, hub: HubOptions = DEFAULT_HUB) -> Any:
    """Load the feature extractor of a speech encoder."""
    return load(AutoFeatureExtractor, name, "a feature extractor (preprocessor_config.json)", hub, "", _EXTRACTOR_FILES)


def load_tokenizer(name: str, hub: HubOptions = DEFAULT_HUB) -> Any:
    """Load the tokenizer of a text decoder."""
    return load(TextTokenizer, name, "a tokenizer (tokenizer.json)", hub, "", _TOKENIZER_FILES)
