"""Loading anything of transformers from a directory or the Hub, with errors that name what is missing where."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoFeatureExtractor, PretrainedConfig

from ..errors import ExportError
from .positions import compute_position_tables
from .speech2text2_tokenizer import TextTokenizer

FOR_TRAINING_ONLY = "masked_spec_embed"
"""What masked frames are replaced with in training; many checkpoints lack it."""

FEATURE_EXTRACTOR, TOKENIZER = "feature-extractor", "tokenizer"
"""What a bundle can do without."""


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


def load(factory: Any, name: str, what: str, hub: HubOptions, **options: Any) -> Any:
    """`factory.from_pretrained(name)`.

    Args:
        factory: an Auto class, or a model class.
        name: directory or Hub id.
        what: is loaded, for the error.
        hub: how to reach the Hub.
        options: more keywords of `from_pretrained`.

    Raises:
        ExportError: it is not there, or it is damaged.
    """
    try:
        return factory.from_pretrained(name, **hub.keywords(), **options)
    except UnpicklingError as error:
        raise ExportError(
            f"{name}: {what} could not be loaded: the pickled file holds more than tensors, and such files may run "
            "code; save the model again as safetensors"
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0]
        place = "from this directory" if Path(name).is_dir() else "from the Hub, and there is no such directory"
        raise ExportError(f"{name}: {what} could not be loaded {place}: {reason}") from error


def load_config(name: str, hub: HubOptions) -> PretrainedConfig:
    """The configuration of any model."""
    return load(AutoConfig, name, "a configuration", hub)


def load_weights(
    factory: Any, name: str, config: PretrainedConfig, hub: HubOptions, key_mapping: dict[str, str] | None = None
) -> tuple[Any, list[str]]:
    """A float32 model ready to run, and the names of the weights that its checkpoint lacks."""
    options = {"config": config, "dtype": torch.float32, "output_loading_info": True, "key_mapping": key_mapping}
    model, info = load(factory, name, "weights", hub, **options)
    compute_position_tables(model)
    return model.eval(), sorted(key for key in info["missing_keys"] if not key.endswith(FOR_TRAINING_ONLY))


def load_extractor(name: str, hub: HubOptions, without: Collection[str] = ()) -> Any:
    """The feature extractor of a speech encoder; None where `without` names it."""
    if FEATURE_EXTRACTOR in without:
        return None
    return load(AutoFeatureExtractor, name, "a feature extractor (preprocessor_config.json)", hub)


def load_tokenizer(name: str, hub: HubOptions, without: Collection[str] = ()) -> Any:
    """The tokenizer of a text decoder; None where `without` names it."""
    return None if TOKENIZER in without else load(TextTokenizer, name, "a tokenizer (tokenizer.json)", hub)
