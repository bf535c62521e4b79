"""Adapters of peft, such as LoRA: find one, and the model that it was trained on."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers.utils import ADAPTER_SAFE_WEIGHTS_NAME, ADAPTER_WEIGHTS_NAME

from speech_runtime.bundle.safe_files import read_json, unreadable

from ..errors import ExportError
from .directories import ADAPTER_CONFIG, check_adapter
from .hub import HubOptions, check_source, find_file, read_settings, stores_weights

MERGED_KINDS = (
    *("LORA", "ADALORA", "LOHA", "LOKR", "IA3", "VERA", "OFT", "HRA", "FOURIERFT", "LN_TUNING"),
    "TRAINABLE_TOKENS",
)
"""Kinds of adapters (`peft_type`) that change weights, so that a model without adapter can compute the same."""
_PROMPT_KINDS = (
    *("PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING", "ADAPTION_PROMPT", "CPT", "CARTRIDGE"),
)
_SETTINGS = {"peft_type": str, "base_model_name_or_path": str | None, "revision": str | None}
"""Settings of an adapter that are read here, and their types."""
_WEIGHTS_NAMES = (ADAPTER_SAFE_WEIGHTS_NAME, ADAPTER_WEIGHTS_NAME)
"""Files of weights; peft takes the first that is there."""


@dataclass(frozen=True)
class Adapter:
    """An adapter that peft saved.

    Attributes:
        name: Directory or Hub id.
        settings: Content of its adapter_config.json.
        weights: File of its weights; for a Hub id it is in the cache.
    """

    name: str
    settings: dict[str, Any]
    weights: Path

    @property
    def base(self) -> str | None:
        """Directory or Hub id of the model that it was trained on, as it was then; None if that is not recorded."""
        return self.settings.get("base_model_name_or_path") or None


def find_adapter(name: str, hub: HubOptions) -> Adapter | None:
    """Return the adapter in a directory or repository; None if there is none.

    Raises:
        ExportError: Its adapter_config.json cannot be read, or it has no weights.
    """
    path = find_file(name, ADAPTER_CONFIG, hub)
    if path is None:
        return None
    try:
        settings = read_json(path)
    except (OSError, ValueError) as error:
        raise ExportError(f"{name}: {ADAPTER_CONFIG} cannot be read: {unreadable(error)}; copy it again") from error
    wrong = [
        key
        for key, kinds in _SETTINGS.items()
        if not isinstance(settings, dict) or not isinstance(settings.get(key), kinds)
    ]
    if wrong:
        raise ExportError(
            f"{name}: {ADAPTER_CONFIG} has no valid {' and no valid '.join(wrong)}; save the adapter again with peft"
        )
    weights = next(filter(None, (find_file(name, file, hub) for file in _WEIGHTS_NAMES)), None)
    if weights is None:
        raise ExportError(f"{name} has {ADAPTER_CONFIG} but not {' or '.join(_WEIGHTS_NAMES)}; copy the adapter again")
    return Adapter(name, settings, weights)


def base_and_adapter(name: str, adapter: str | None, hub: HubOptions) -> tuple[str, HubOptions, Adapter | None]:
    """Return what to load, and what to merge into it.

    Args:
        name: Directory or Hub id of a checkpoint, or of an adapter, whose base is loaded then.
        adapter: Directory or Hub id of an adapter of the checkpoint.
        hub: Options for the Hub; the revision is that of `name`.

    Returns:
        Directory or Hub id of the base, options to load it with, and the adapter.

    Raises:
        ExportError: The adapter or its base is not there, `name` has an adapter and weights of its own, or the adapter
            is of a kind that cannot be merged.
    """
    beside = find_adapter(name, hub)
    if adapter is not None:
        _check_own_adapter(name, beside, adapter, hub)
        return name, hub, open_adapter(adapter, hub)
    if beside is None:
        return name, hub, None
    if stores_weights(name, hub):
        raise ExportError(
            f"{name} has an adapter of peft ({ADAPTER_CONFIG}) beside the weights of a model, and either may be meant; "
            f"give --adapter {name} too to merge the adapter into them (in Python: adapter={name!r}), or move the "
            "adapter's files elsewhere to export the weights as they are"
        )
    _check_kind(beside)
    base_hub = replace(hub, revision=beside.settings.get("revision"))
    return _base_of(beside, base_hub), base_hub, beside


def open_adapter(name: str, hub: HubOptions) -> Adapter:
    """Return the adapter that must be in a directory, or on the main branch of a repository.

    Raises:
        ExportError: It is not there, or of a kind that cannot be merged.
    """
    check_adapter(name)
    main = replace(hub, revision=None)
    check_source(name, main)
    adapter = find_adapter(name, main)
    if adapter is None:
        raise ExportError(f"{name} could not be loaded from the Hub: it has no {ADAPTER_CONFIG}, or cannot be read")
    _check_kind(adapter)
    return adapter


def refuse_adapter(name: str, hub: HubOptions) -> None:
    """Check that a half of a pair has no adapter: its weights would be left out.

    Raises:
        ExportError: There is an `adapter_config.json`.
    """
    adapter = find_adapter(name, hub)
    if adapter is not None:
        raise ExportError(
            f"{name} has an adapter of peft ({ADAPTER_CONFIG}); give the model that it was trained on"
            f"{f', {adapter.base},' if adapter.base else ''} as --encoder or --decoder, and --adapter {name}"
        )


def _check_own_adapter(name: str, beside: Adapter | None, adapter: str, hub: HubOptions) -> None:
    """Check that a base which has an adapter of its own has weights too, and that the adapter is the one to merge."""
    if beside is None:
        return
    if not stores_weights(name, hub):
        raise ExportError(
            f"{name} is an adapter itself ({ADAPTER_CONFIG} without the weights of a model); give the model that both "
            f"adapters were trained on{f', {beside.base}' if beside.base else ''}, or merge that one first"
        )
    if name != adapter and Path(name).resolve() != Path(adapter).resolve():
        raise ExportError(
            f"{name} has an adapter of its own ({ADAPTER_CONFIG}), which --adapter {adapter} would leave out; merge "
            "that one first, or move its files elsewhere"
        )


def _check_kind(adapter: Adapter) -> None:
    kind = adapter.settings["peft_type"]
    if kind in _PROMPT_KINDS:
        raise ExportError(
            f"{adapter.name} is an adapter of kind {kind}, which cannot be merged: it gives the layers more to attend "
            "to instead of changing their weights; train one that changes weights, such as LoRA"
        )
    if kind not in MERGED_KINDS:
        raise ExportError(
            f"{adapter.name} is an adapter of kind {kind}; those that are merged are {', '.join(MERGED_KINDS)}. Merge "
            "it with peft if that can (merge_and_unload), and export what save_pretrained writes"
        )
    if adapter.settings.get("megatron_config") is not None:
        raise ExportError(
            f"{adapter.name}: its {ADAPTER_CONFIG} has a megatron_config, for which peft would import a module that "
            "the file names; remove it: a model of transformers has no layers of Megatron"
        )


def _base_of(adapter: Adapter, hub: HubOptions) -> str:
    """Return the recorded base of an adapter, a path from the working directory or a Hub id, as peft takes it."""
    remedy = f"give it before the adapter: speech-export BASE --adapter {adapter.name}"
    if adapter.base is None:
        raise ExportError(f"{adapter.name} is an adapter, and does not say of which model; {remedy}")
    try:
        check_source(adapter.base, hub)
        read_settings(adapter.base, hub)
    except ExportError as error:
        raise ExportError(
            f"{adapter.name} is an adapter of {adapter.base}, which cannot be loaded ({error}); {remedy}"
        ) from error
    return adapter.base
