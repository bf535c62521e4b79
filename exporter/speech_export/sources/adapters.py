"""Adapters of peft, such as LoRA: find one and the model that it was trained on, and merge it into that model."""

import logging
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import SpeechEncoderDecoderModel
from transformers.utils import ADAPTER_SAFE_WEIGHTS_NAME, ADAPTER_WEIGHTS_NAME

from speech_runtime.bundle.safe_files import read_json, unreadable
from speech_runtime.install_hints import how_to_install

from ..errors import ExportError, reason, shortened
from .directories import ADAPTER_CONFIG, check_adapter
from .hub import HubOptions, check_source, find_file, read_settings, stores_weights
from .tensor_file import read_tensors

logger = logging.getLogger(__name__)

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
_PREFIX = "base_model.model."
"""What peft writes before the names of a model's modules."""
_WEIGHTS_NAMES = (ADAPTER_SAFE_WEIGHTS_NAME, ADAPTER_WEIGHTS_NAME)
"""Files of weights; peft takes the first that is there."""
_NAME = "default"
"""Name of the adapter within peft, while it is merged."""


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


def merge_adapter(
    model: SpeechEncoderDecoderModel, adapter: Adapter, bases: Sequence[str], random_weights: Sequence[str] = ()
) -> list[str]:
    """Merge an adapter into a model, in place and in float32.

    Args:
        model: Model to change; the adapter may be one of the whole, of its encoder, or of its decoder.
        adapter: Adapter to merge.
        bases: Name of the model's checkpoint, or of the two that it was joined from.
        random_weights: Names of weights of the model that are random.

    Returns:
        Those of `random_weights` that the adapter does not bring along.

    Raises:
        ExportError: peft is missing, the files of the adapter are damaged, or it does not fit the model.
    """
    weights, directory = read_tensors(adapter.weights, f"the adapter {adapter.name}"), str(adapter.weights.parent)
    half, peft = _half(model, weights), _peft(adapter)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they are about is refused, or prevented by `_untie`
            config = peft.PeftConfig.from_pretrained(directory)
            _check_known(adapter, config)
            config.task_type = None  # with one, peft adds what generation and training need
            adapted = peft.get_peft_model(model.get_submodule(half), config)
            loaded = adapted.load_adapter(directory, _NAME, torch_device="cpu")
            _check_complete(loaded)
            _check_no_change_of_random(adapted, half, random_weights)
            _untie(adapted)
            adapted.merge_and_unload()
    except Exception as error:  # peft raises anything for modules and shapes that it does not find
        trained = f"was trained on {adapter.base}" if adapter.base else "does not say what it was trained on"
        raise ExportError(
            f"the adapter {adapter.name} cannot be merged into {' + '.join(bases)}: {reason(error)}. It {trained}; "
            "give the model that it belongs to"
        ) from error
    _warn_of_other_base(adapter, bases)
    saved = {f"{half}.{name}".lstrip(".") for name in _names(weights)}
    return [name for name in random_weights if name not in saved]


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


def _peft(adapter: Adapter) -> Any:
    try:
        import peft  # heavy, and optional
    except ImportError as error:
        raise ExportError(
            f"peft is needed to merge the adapter {adapter.name} ({reason(error)}): {how_to_install('peft')}"
        ) from error
    return peft


def _names(weights: dict[str, Tensor]) -> list[str]:
    """Return the names of weights as the model of the adapter has them."""
    return [name.removeprefix(_PREFIX) for name in weights]


def _half(model: SpeechEncoderDecoderModel, weights: dict[str, Tensor]) -> str:
    """Return the part of a model that has the modules of an adapter: "encoder", "decoder", or "" for the whole."""

    def found(part: str) -> int:
        modules = {name for name, _ in model.get_submodule(part).named_modules()}
        return sum(
            ".".join(parts[:depth]) in modules
            for parts in (name.split(".") for name in _names(weights))
            for depth in range(1, len(parts))
        )

    return max(("", "encoder", "decoder"), key=found)


def _check_known(adapter: Adapter, config: Any) -> None:
    """Check that peft knows every setting that an adapter uses: it leaves out those of later releases, and warns."""
    unknown = sorted(key for key, value in adapter.settings.items() if value and not hasattr(config, key))
    if unknown:
        raise ValueError(
            f"the installed peft does not know {shortened(unknown)} of its {ADAPTER_CONFIG}: pip install -U peft"
        )


def _check_complete(loaded: Any) -> None:
    """Check that every weight of the file has found its place, and every place its weight: peft only warns."""
    if loaded.unexpected_keys:
        raise ValueError(f"the model has no place for {_counted(loaded.unexpected_keys)}")
    if loaded.missing_keys:
        raise ValueError(f"the adapter lacks {_counted(loaded.missing_keys)}")


def _counted(keys: Sequence[str]) -> str:
    names = sorted(key.removeprefix(_PREFIX).replace(f".{_NAME}", "") for key in keys)
    return f"{len(names)} of the adapter's weights: {shortened(names)}"


def _check_no_change_of_random(adapted: Any, half: str, random_weights: Sequence[str]) -> None:
    """Check that the adapter changes trained weights only: it was trained on others than the random ones here."""
    random_modules = {name.rpartition(".")[0] for name in random_weights}
    targets = [f"{half}.{name}".lstrip(".") for name in adapted.base_model.targeted_module_names]
    changed = sorted(random_modules.intersection(targets))
    if changed:
        raise ValueError(f"it changes weights that are in neither checkpoint, and so are random: {shortened(changed)}")


def _untie(model: nn.Module) -> None:
    """Give adapted modules weights of their own.

    peft leaves a module that is tied to an adapted one as it was, an output layer for example. Merging in place would
    change both.
    """
    names: dict[nn.Parameter, list[str]] = defaultdict(list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names[parameter].append(name)
    for parameter, tied in names.items():
        for name in tied if len(tied) > 1 else ():
            module, _, attribute = name.rpartition(".")
            if module.endswith(".base_layer"):
                setattr(model.get_submodule(module), attribute, nn.Parameter(parameter.detach().clone()))


def _warn_of_other_base(adapter: Adapter, bases: Sequence[str]) -> None:
    """Warn if no base has the recorded name; a directory that was moved keeps the last part of its path."""
    if adapter.base is None or any(_last_part(base) == _last_part(adapter.base) for base in bases):
        return
    logger.warning(
        "The adapter %s was trained on %s, and fits %s in its shapes; check that the two are the same model.",
        adapter.name,
        adapter.base,
        " + ".join(bases),
    )


def _last_part(name: str) -> str:
    return Path(name).resolve().name
