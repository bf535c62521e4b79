"""Read a file of tensors, safetensors or pickled, as adapters have them beside the weights of a model."""

from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..errors import ExportError, reason, shortened

PICKLED_CODE = (
    "the pickled file holds more than tensors, and such files may run code; save the model again as safetensors"
)


def read_tensors(path: Path, what: str) -> dict[str, Tensor]:
    """Return the tensors of a file by name; nothing but tensors is ever unpickled.

    Args:
        path: File, whose suffix says whether it is safetensors.
        what: Noun for the errors, such as "the adapter NAME".

    Raises:
        ExportError: The file is damaged, holds anything else, or has values that are not finite.
    """
    try:
        tensors = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except UnpicklingError as error:
        raise ExportError(f"{what}: {path.name} could not be loaded: {PICKLED_CODE}") from error
    except Exception as error:  # damaged files make torch fail anywhere
        raise ExportError(f"{what}: {path.name} is damaged: {reason(error)}; copy it again") from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise ExportError(f"{what}: {path.name} holds something other than tensors; save it again as safetensors")
    broken = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise ExportError(
            f"{what}: {len(broken)} of its weights are not finite (NaN or infinite): {shortened(broken)}; the file is "
            "damaged or its training has diverged: take an earlier one"
        )
    return tensors
