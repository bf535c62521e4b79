"""Load the weights of a checkpoint into a model; missing, unused and misshapen ones are named."""

import copy
import re
from typing import Any

import torch
import transformers
from torch import nn
from transformers import MODEL_FOR_PRETRAINING_MAPPING, MODEL_MAPPING, PretrainedConfig, PreTrainedModel
from transformers.models.trocr.modeling_trocr import TrOCRSinusoidalPositionalEmbedding

from ..errors import ExportError, shortened
from .hub import HubOptions, load

FOR_TRAINING_ONLY = "masked_spec_embed"
"""Weight that replaces masked frames in training; many checkpoints lack it."""

_NO_ADAPTER = "no-adapter"
"""Folder that no checkpoint has. If peft is installed, transformers loads an adapter beside the weights without being
asked to; `adapters` merges one where it is asked for."""

_COMPUTED = re.compile(
    r"(^|\.)(position_ids|token_type_ids|masked_bias|inv_freq|num_batches_tracked|version"
    rf"|embed_positions\.(weights|_float_tensor)|{FOR_TRAINING_ONLY})$"
)
"""Tensors in checkpoints of older releases that a model computes itself, or needs for training only."""


def load_weights(
    factory: Any, name: str, config: PretrainedConfig, hub: HubOptions, key_mapping: dict[str, str] | None = None
) -> tuple[Any, list[str]]:
    """Load all weights of a checkpoint into a float32 model.

    Args:
        factory: Model class.
        name: Directory or Hub id.
        config: Configuration of the model.
        hub: Options for the Hub.
        key_mapping: Pattern → replacement, for names of weights in the checkpoint.

    Returns:
        The model, ready to run, and the names of the weights that its checkpoint lacks.

    Raises:
        ExportError: Weights cannot be read or belong to another model; the error names them.
    """
    model, missing, unused = _load(factory, name, config, hub, key_mapping)
    _refuse_unused(name, unused)
    return model, missing


def load_whole(
    factory: Any, name: str, config: PretrainedConfig, hub: HubOptions, key_mapping: dict[str, str] | None = None
) -> Any:
    """Load all weights of a checkpoint into a float32 model that lacks none; see `load_weights`.

    Raises:
        ExportError: Weights are missing or cannot be read, or belong to another model; the error names them.
    """
    model, missing = load_weights(factory, name, config, hub, key_mapping)
    refuse_missing(name, missing)
    return model


def refuse_missing(name: str, missing: list[str]) -> None:
    """Check that a checkpoint lacks no weights.

    Raises:
        ExportError: It does; the error names them.
    """
    if missing:
        raise ExportError(
            f"{name} lacks {len(missing)} of the model's weights: {shortened(missing)}; "
            "save it again with save_pretrained"
        )


def load_part(factory: Any, name: str, config: PretrainedConfig, whole: PretrainedConfig, hub: HubOptions) -> Any:
    """Load a part of a checkpoint, such as the decoder of a translation model, or an encoder without its CTC head.

    Args:
        factory: Auto class.
        name: Directory or Hub id.
        config: Configuration of the part.
        whole: Configuration of the checkpoint. Weights of that model that the part does not have are left out, as
            `from_encoder_decoder_pretrained` does.
        hub: Options for the Hub.

    Returns:
        The model, ready to run, and the names of the weights that its checkpoint lacks.

    Raises:
        ExportError: Weights cannot be read, or not even the checkpoint's own model has them; the error names them.
    """
    model, missing, unused = _load(factory, name, config, hub)
    shared = {f"{prefix}shared.weight" for prefix in ("", f"{model.base_model_prefix}.")}
    if shared.intersection(unused) and any(key.endswith("decoder.embed_tokens.weight") for key in missing):
        # One embedding for both halves is saved once, under a name that a decoder alone does not have.
        embedding = f"{model.base_model_prefix}.decoder.embed_tokens.weight"
        prefix = re.escape(model.base_model_prefix)
        model, missing, unused = _load(factory, name, config, hub, {rf"^({prefix}\.)?shared\.weight$": embedding})
    if unused:
        known = _names_of_whole(whole)
        prefix = f"{model.base_model_prefix}."
        _refuse_unused(name, [key for key in unused if key.removeprefix(prefix) not in known])
    return model, missing


def _load(
    factory: Any, name: str, config: PretrainedConfig, hub: HubOptions, key_mapping: dict[str, str] | None = None
) -> tuple[Any, list[str], list[str]]:
    """Return a model, the names of weights that its checkpoint lacks, and of those that the model lacks."""
    _refuse_quantized(name, config)
    model, info = load(
        factory,
        name,
        "weights",
        hub,
        config=config,
        dtype=torch.float32,
        output_loading_info=True,
        key_mapping=key_mapping,
        ignore_mismatched_sizes=True,  # they are refused below, by name
        adapter_kwargs={"subfolder": _NO_ADAPTER},
    )
    misshapen = [
        f"{key} is {list(found)}, not {list(expected)}" for key, found, expected in sorted(info["mismatched_keys"])
    ]
    if misshapen:
        raise ExportError(
            f"{name}: weights do not fit config.json, whose model has other shapes: {shortened(misshapen)}; put the "
            "config.json there that the checkpoint was saved with"
        )
    _compute_position_tables(model)
    missing = sorted(key for key in info["missing_keys"] if not key.endswith(FOR_TRAINING_ONLY))
    return model.eval(), missing, sorted(key for key in info["unexpected_keys"] if not _COMPUTED.search(key))


def _refuse_quantized(name: str, config: PretrainedConfig) -> None:
    for part in (config, getattr(config, "encoder", None), getattr(config, "decoder", None)):
        quantization = getattr(part, "quantization_config", None)
        if quantization is not None:
            fields = quantization if isinstance(quantization, dict) else quantization.to_dict()
            raise ExportError(
                f"{name} is quantised (quantization_config in its config.json: {fields.get('quant_method')}), and an "
                "export starts from float weights; export the checkpoint that it was made from, or save it again after "
                "model.dequantize(), and choose --precision int8 or int4"
            )


def _compute_position_tables(model: nn.Module) -> None:
    """Compute the sinusoidal tables of a TrOCR decoder, float32 [positions, width].

    `from_pretrained` makes a model without memory and then fills in weights and buffers; the table is neither, so it
    stays without values (transformers 5.23).
    """
    for module in model.modules():
        if isinstance(module, TrOCRSinusoidalPositionalEmbedding) and module.weights.is_meta:
            module.weights = module.get_embedding(*module.weights.shape, module.padding_idx)


def _refuse_unused(name: str, unused: list[str]) -> None:
    if unused:
        raise ExportError(
            f"{name}: the model of its config.json has no place for {len(unused)} of its weights: {shortened(unused)}; "
            "they would be left out: correct config.json (number of layers, add_adapter, model_type and so on), or "
            "save the checkpoint again without them"
        )


def _names_of_whole(config: PretrainedConfig) -> set[str]:
    """Return the names of all weights of the models that a configuration names, without their common prefix."""
    named = [getattr(transformers, str(name), None) for name in config.architectures or ()]
    classes: list[Any] = [kind for kind in named if isinstance(kind, type) and issubclass(kind, PreTrainedModel)]
    classes += [
        kinds[type(config)] for kinds in (MODEL_MAPPING, MODEL_FOR_PRETRAINING_MAPPING) if type(config) in kinds
    ]
    names: set[str] = set()
    for kind in classes:
        if kind.config_class is type(config):
            with torch.device("meta"):
                model = kind(copy.deepcopy(config))
            names.update(key.removeprefix(f"{model.base_model_prefix}.") for key in model.state_dict())
    return names
