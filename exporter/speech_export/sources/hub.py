"""Loading anything of transformers from a directory or the Hub, with errors that name what is missing where."""

import errno
import os
import stat
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from transformers import AutoConfig, AutoFeatureExtractor, PretrainedConfig

from speech_runtime.bundle.safe_files import is_directory

from ..errors import ExportError, reason
from .legacy.speech2text2_tokenizer import TextTokenizer

FOR_TRAINING_ONLY = "masked_spec_embed"
"""What masked frames are replaced with in training; many checkpoints lack it."""

FEATURE_EXTRACTOR, TOKENIZER = "feature-extractor", "tokenizer"
"""What a bundle can do without."""

_ASKS_TO_RUN_CODE = "custom code"
_NEVER_RUN = (
    "needs Python code of its own (auto_map), and speech-export never runs a checkpoint's code "
    "(trust_remote_code=False); save it again with classes of transformers, or load it in Python yourself and give the "
    "model to speech_export.export"
)


@dataclass(frozen=True)
class HubOptions:
    """How to reach the Hub: which revision, as whom, cached where, or only what is cached already."""

    revision: str | None = None
    token: str | None = None
    cache_dir: str | None = None
    offline: bool = False

    def keywords(self) -> dict[str, Any]:
        """The same, as the keywords of `from_pretrained`."""
        return {
            "revision": self.revision or "main",
            "token": self.token,
            "cache_dir": self.cache_dir,
            "local_files_only": self.offline,
        }


ANONYMOUS = HubOptions()
"""The latest revision, cached where the Hub's own client caches."""


def check_directory(name: str) -> None:
    """Check what a checkpoint is named by, where it is a path: transformers takes all but directories for Hub ids.

    Raises:
        ExportError: it is a file, or may not be looked at.
    """
    try:
        mode = os.stat(name).st_mode  # noqa: PTH116 - it may be a Hub id
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return  # perhaps on the Hub
    except OSError as error:
        raise ExportError(f"{name} cannot be read: {error.strerror}; check its name and permissions") from error
    if not stat.S_ISDIR(mode):
        raise ExportError(f"{name} is a file; give the directory that it is in: {Path(name).parent}")
    if not os.access(name, os.R_OK | os.X_OK):
        raise ExportError(f"{name} cannot be read: {os.strerror(errno.EACCES)}; check its permissions")


def load(factory: Any, name: str, what: str, hub: HubOptions, remedy: str = "", **options: Any) -> Any:
    """`factory.from_pretrained(name)`, without any code that may be beside it.

    Args:
        factory: an Auto class, or a model class.
        name: directory or Hub id.
        what: is loaded, for the error.
        hub: how to reach the Hub.
        remedy: what to do where it cannot be loaded, for the error.
        options: more keywords of `from_pretrained`.

    Raises:
        ExportError: it is not there, or it is damaged.
    """
    check_directory(name)
    try:
        return factory.from_pretrained(name, trust_remote_code=False, **hub.keywords(), **options)
    except UnpicklingError as error:
        raise ExportError(
            f"{name}: {what} could not be loaded: the pickled file holds more than tensors, and such files may run "
            "code; save the model again as safetensors"
        ) from error
    except Exception as error:  # damaged files make transformers stumble anywhere
        if _ASKS_TO_RUN_CODE in str(error):
            raise ExportError(f"{name}: {what} {_NEVER_RUN}") from error
        place = "from this directory" if is_directory(name) else "from the Hub, and there is no such directory"
        raise ExportError(f"{name}: {what} could not be loaded {place}: {reason(error)}{remedy}") from error


def read_settings(name: str, hub: HubOptions) -> dict[str, Any]:
    """The content of a checkpoint's config.json; empty where it cannot be read: who loads the checkpoint says why."""
    try:
        settings, _ = PretrainedConfig.get_config_dict(name, **hub.keywords())
    except Exception:
        return {}
    return settings if isinstance(settings, dict) else {}


def load_config(name: str, hub: HubOptions) -> PretrainedConfig:
    """The configuration of any model."""
    return load(AutoConfig, name, "a configuration", hub)


def load_extractor(name: str, hub: HubOptions, without: Collection[str] = ()) -> Any:
    """The feature extractor of a speech encoder; None where `without` names it."""
    if FEATURE_EXTRACTOR in without:
        return None
    return load(
        AutoFeatureExtractor, name, "a feature extractor (preprocessor_config.json)", hub, _elsewhere(FEATURE_EXTRACTOR)
    )


def load_tokenizer(name: str, hub: HubOptions, without: Collection[str] = ()) -> Any:
    """The tokenizer of a text decoder; None where `without` names it."""
    if TOKENIZER in without:
        return None
    return load(TextTokenizer, name, "a tokenizer (tokenizer.json)", hub, _elsewhere(TOKENIZER))


def _elsewhere(part: str) -> str:
    return f"; say where there is one (--processor), or do without (--without {part})"
