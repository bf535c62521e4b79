"""Reads a checkpoint of `FlaxSpeechEncoderDecoderModel`, a class that transformers 5 no longer has, without JAX.

Names in the file follow from the modules of the torch model, whatever its families: Flax calls the weight of a linear
layer or a convolution `kernel`, with its axes reversed, that of a normalisation `scale`, and that of an embedding
`embedding`. All other names are the same in both (transformers 4, modeling_flax_pytorch_utils.py).
"""

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList
from transformers import GenerationConfig, PretrainedConfig, SpeechEncoderDecoderModel
from transformers.pytorch_utils import Conv1D

from ...errors import ExportError, shortened
from ..hub import FLAX_WEIGHTS_NAME, TORCH_WEIGHTS_NAMES, HubOptions, find_file
from ..weights import FOR_TRAINING_ONLY
from .flax_file import Array, read_arrays

_KERNEL = "kernel"
_WEIGHT_NAMES = (
    ((nn.Linear, nn.Conv1d, Conv1D), _KERNEL),
    ((nn.LayerNorm, nn.GroupNorm), "scale"),
    ((nn.Embedding,), "embedding"),
)
_WEIGHT_NORM_NAMES = {"original0": "weight_g", "original1": "weight_v"}


def find_flax_weights(name: str, hub: HubOptions) -> Path | None:
    """Return the Flax weights of a checkpoint; None if it has torch weights too, or no weights."""
    if any(find_file(name, file, hub) for file in TORCH_WEIGHTS_NAMES):
        return None
    return find_file(name, FLAX_WEIGHTS_NAME, hub)


def load_flax(name: str, weights: Path, config: PretrainedConfig, hub: HubOptions) -> SpeechEncoderDecoderModel:
    """Return a Flax checkpoint as a float32 torch model in evaluation mode, with its generation settings.

    Args:
        name: Directory or Hub id.
        weights: The checkpoint's `flax_model.msgpack`.
        config: Configuration of the composite.
        hub: Options for the Hub.

    Raises:
        ExportError: The file is damaged, or does not fit the configuration.
    """
    model = load_flax_weights(weights, config)
    try:
        model.generation_config = GenerationConfig.from_pretrained(name, **hub.keywords())
    except OSError:  # older checkpoints have these settings in config.json
        model.generation_config = GenerationConfig.from_pretrained(
            name, config_file_name="config.json", _from_model_config=True, **hub.keywords()
        )
    return model


def load_flax_weights(path: Path, config: PretrainedConfig) -> SpeechEncoderDecoderModel:
    """Return a float32 torch model in evaluation mode, with the weights of a `flax_model.msgpack`.

    Args:
        path: The `flax_model.msgpack`.
        config: Configuration of the composite; not changed.

    Raises:
        ExportError: The file is damaged; the configuration is not that of a composite; the model has no place for an
            array, there is no array for a weight, or a shape differs.
    """
    arrays = read_arrays(path)
    model = _untrained(path, config)
    problems = _fill(_weights(model), arrays)
    if problems:
        raise ExportError(
            f"{path} does not fit its configuration: {'; '.join(problems)}; give it the config.json that it was saved "
            "with, or convert it with transformers 4 (SpeechEncoderDecoderModel.from_pretrained with from_flax=True)"
        )
    _count_positions_from_zero(model.decoder)
    return model


def _untrained(path: Path, config: PretrainedConfig) -> SpeechEncoderDecoderModel:
    try:
        model = SpeechEncoderDecoderModel(copy.deepcopy(config))
    except (ValueError, KeyError, RuntimeError, ImportError) as error:
        raise ExportError(f"{path.parent / 'config.json'}: no model can be made from it: {error}") from error
    return model.float().eval()  # whatever dtype the configuration sets


@dataclass(frozen=True)
class _Weight:
    """A tensor of the torch model, and its possible paths in the Flax tree: a tied weight has several."""

    tensor: Tensor
    paths: tuple[str, ...]


def _weights(model: nn.Module) -> list[_Weight]:
    """Return every tensor that a torch checkpoint would have, once."""
    tensors: dict[int, Tensor] = {}
    paths: dict[int, list[str]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        tensors[id(tensor)] = tensor.detach()
        paths.setdefault(id(tensor), []).append(_flax_path(model, name))
    return [_Weight(tensors[key], tuple(paths[key])) for key in tensors]


def _flax_path(model: nn.Module, name: str) -> str:
    """Return the path in the Flax tree of a tensor of the torch model."""
    owner, _, weight = name.rpartition(".")
    module = model.get_submodule(owner)
    if isinstance(module, ParametrizationList):  # "….parametrizations.weight.original0": torch's weight norm
        owner, weight = owner.removesuffix(".parametrizations.weight"), _WEIGHT_NORM_NAMES[weight]
    elif weight == "weight":
        weight = next((flax for kinds, flax in _WEIGHT_NAMES if isinstance(module, kinds)), weight)
    return f"{owner}.{weight}".replace(".", "/")


def _fill(weights: list[_Weight], arrays: dict[str, Array]) -> list[str]:
    """Copy every array into its tensor; return the problems."""
    unplaced = {path for path in arrays if not path.endswith(FOR_TRAINING_ONLY)}
    missing, misshapen, contradictory = [], [], []
    for weight in weights:
        found = [path for path in weight.paths if path in arrays]
        unplaced.difference_update(found)
        if not found and not weight.paths[0].endswith(FOR_TRAINING_ONLY):
            missing.append(weight.paths[0])
        target = weight.tensor.numpy()
        for path in found:
            reverse = path.endswith(_KERNEL)
            array = arrays[path].T if reverse else arrays[path]
            if array.shape != target.shape:
                expected = target.shape[::-1] if reverse else target.shape
                misshapen.append(f"{path} is {list(arrays[path].shape)}, not {list(expected)}")
            elif path == found[0]:
                target[...] = array
            elif not np.array_equal(target, array):
                contradictory.append(f"{path} and {found[0]}")
    problems = {
        "no place in the model for": sorted(unplaced),
        "no array for": missing,
        "wrong shape:": misshapen,
        "tied to one another, but different:": contradictory,
    }
    return [f"{problem} {shortened(names)}" for problem, names in problems.items() if names]


@torch.no_grad()
def _count_positions_from_zero(decoder: nn.Module) -> None:
    """Move RoBERTa's position embeddings to the rows that torch reads.

    In torch RoBERTa numbers positions from `padding_idx` + 1, but `FlaxSpeechEncoderDecoderModel` numbers them from 0
    for every decoder. A padding token has the position `padding_idx`, which matters if decoding starts with one.
    """
    for name, module in decoder.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            first = module.padding_idx + 1
            module.weight[first:] = module.weight[:-first].clone()
            module.weight[:first] = module.weight[first]
