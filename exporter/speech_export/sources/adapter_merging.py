"""Merge an adapter of peft into the model that it was trained on, so that the model alone computes the same."""

import logging
import sys
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel, SpeechEncoderDecoderModel
from transformers.models.auto.modeling_auto import MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES

from speech_runtime.install_hints import how_to_install

from ..errors import ExportError, reason, shortened
from ..tracing.facts import encoder_facts
from ..verification.reference import Oracle
from .adapters import Adapter
from .directories import ADAPTER_CONFIG
from .tensor_file import read_tensors

logger = logging.getLogger(__name__)

_PREFIX = "base_model.model."
"""What peft writes before the names of a model's modules."""
_NAME = "default"
"""Name of the adapter within peft, while it is merged."""
_FRAMES = 40
_TOKENS = 8
_DIFFERENCE = 1e-2
"""Largest difference of a log-probability that merging may make: far above rounding, far below an adapter's effect."""


def merge_adapter(
    model: SpeechEncoderDecoderModel,
    adapter: Adapter,
    bases: Sequence[str],
    random_weights: Sequence[str] = (),
    native: PreTrainedModel | None = None,
) -> list[str]:
    """Merge an adapter into a model, in place and in float32.

    Args:
        model: Model to change; the adapter may be one of the whole, of its encoder, or of its decoder.
        adapter: Adapter to merge.
        bases: Name of the model's checkpoint, or of the two that it was joined from.
        random_weights: Names of weights of the model that are random.
        native: Model with the same modules that `model` was joined from; the adapter was trained on it.

    Returns:
        Those of `random_weights` that the adapter does not bring along.

    Raises:
        ExportError: peft is missing, the files of the adapter are damaged, it does not fit the model, or the merged
            model does not compute what the model computes with its adapter.
    """
    weights = read_tensors(adapter.weights, f"the adapter {adapter.name}")
    half, peft, audio = "" if native else _half(model, weights), _peft(adapter), _example(model)
    merging = f"the adapter {adapter.name} cannot be merged into {' + '.join(bases)}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they are about is refused, or prevented by `_untie`
        try:
            _check_architecture(adapter, native)
            adapted = _adapted(peft, (native or model).get_submodule(half), adapter)
            _check_no_change_of_random(adapted, half, random_weights)
        except Exception as error:  # peft raises anything for modules and shapes that it does not find
            trained = f"was trained on {adapter.base}" if adapter.base else "does not say what it was trained on"
            raise ExportError(f"{merging}: {reason(error)}. It {trained}; give the model that it belongs to") from error
        expected = _log_probabilities(model, audio)
        try:
            _untie(adapted)
            adapted.merge_and_unload()
        except Exception as error:  # the same, for modules that it cannot merge
            raise ExportError(f"{merging}: {reason(error)}; train one that leaves such modules out") from error
    difference = float((_log_probabilities(model, audio) - expected).abs().max())
    if not difference <= _DIFFERENCE:
        raise ExportError(
            f"{merging}: the merged model differs from the one with its adapter by {difference:.2g} in "
            "log-probabilities. The adapter may change modules whose weights the model reads without calling them, as "
            "WavLM does in its attention, so that it had no effect there in training; train one that leaves them out"
        )
    _warn_of_other_base(adapter, bases)
    saved = {f"{half}.{name}".lstrip(".") for name in _names(weights)}
    return [name for name in random_weights if name not in saved]


def _peft(adapter: Adapter) -> Any:
    try:
        import peft  # heavy, and optional
    except ImportError as error:
        raise ExportError(
            f"peft is needed to merge the adapter {adapter.name} ({reason(error)}): {how_to_install('peft')}"
        ) from error
    return peft


def _check_architecture(adapter: Adapter, native: PreTrainedModel | None) -> None:
    """Check that an adapter was trained on a model of this class: modules of others have the same names, and may fit.

    Raises:
        ValueError: It was not; an adapter of a half, or one that does not record the class, passes.
    """
    recorded = adapter.settings.get("auto_mapping")
    trained_on = recorded.get("base_model_class") if isinstance(recorded, dict) else None
    known = MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES.values()
    if native is not None and trained_on in known and trained_on != type(native).__name__:
        raise ValueError(f"its base is a {trained_on}, and this is a {type(native).__name__}")


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


def _adapted(peft: Any, model: nn.Module, adapter: Adapter) -> Any:
    """Return a `PeftModel` around `model`, which it changes, with the weights of the adapter and no others.

    Raises:
        Exception: The adapter does not fit.
    """
    directory = str(adapter.weights.parent)
    config = peft.PeftConfig.from_pretrained(directory)
    unknown = sorted(key for key, value in adapter.settings.items() if value and not hasattr(config, key))
    if unknown:  # peft leaves out those of later releases
        raise ValueError(
            f"the installed peft does not know {shortened(unknown)} of its {ADAPTER_CONFIG}: pip install -U peft"
        )
    config.task_type = None  # with one, peft adds what generation and training need
    adapted = peft.get_peft_model(model, config)
    loaded = adapted.load_adapter(directory, _NAME, torch_device="cpu")
    if loaded.unexpected_keys:
        raise ValueError(f"the model has no place for {_counted(loaded.unexpected_keys)}")
    if loaded.missing_keys:
        raise ValueError(f"the adapter lacks {_counted(loaded.missing_keys)}")
    return adapted


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


def _example(model: SpeechEncoderDecoderModel) -> NDArray[np.float32]:
    """Return noise for the encoder, float32 [1, samples] or [1, time, features]."""
    facts = encoder_facts(model.encoder)
    length = min(facts.min_length + _FRAMES * facts.stride, facts.max_length or sys.maxsize)
    width = () if facts.feature_size is None else (facts.feature_size,)
    return np.random.default_rng(0).standard_normal((1, length, *width)).astype(np.float32)


def _log_probabilities(model: SpeechEncoderDecoderModel, audio: NDArray[np.float32]) -> Tensor:
    """Return log-probabilities float32 [1, tokens, vocabulary] after the first few tokens of the vocabulary."""
    mask = np.ones(audio.shape[:2], dtype=np.int64)
    return Oracle(model, audio, mask).logprobs(np.arange(_TOKENS)[None])


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
