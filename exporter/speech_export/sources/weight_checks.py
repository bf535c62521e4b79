"""What must hold of a model's weights before anything is made of them."""

import torch
from transformers import SpeechEncoderDecoderModel

from ..errors import ExportError, shortened
from .hub import FOR_TRAINING_ONLY


def check_weights(model: SpeechEncoderDecoderModel) -> None:
    """Check that a model can be exported as it is in memory.

    Raises:
        ExportError: weights are not float32 on the CPU, or not finite (NaN, infinite); names them.
    """
    if any(tensor.dtype != torch.float32 or tensor.device.type != "cpu" for tensor in model.parameters()):
        raise ExportError("the model must be float32 on the CPU to be exported: model.float().cpu()")
    broken = [
        name
        for name, tensor in model.state_dict().items()
        if tensor.is_floating_point() and not name.endswith(FOR_TRAINING_ONLY) and not bool(tensor.isfinite().all())
    ]
    if broken:
        raise ExportError(
            f"{len(broken)} of the model's weights are not finite (NaN or infinite): {shortened(broken)}; the "
            "checkpoint is damaged or its training has diverged: export an earlier one"
        )
