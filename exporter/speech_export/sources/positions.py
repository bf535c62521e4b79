"""Position tables that a model computes and no checkpoint has."""

from torch import nn
from transformers.models.trocr.modeling_trocr import TrOCRSinusoidalPositionalEmbedding


def compute_position_tables(model: nn.Module) -> None:
    """Compute the sinusoidal tables of a TrOCR decoder that `from_pretrained` has left without values.

    `from_pretrained` makes a model without memory and then fills in the weights; the table is neither weight nor
    buffer, so that nothing fills it in (transformers 5.23).

    Args:
        model: just loaded; its tables, float32 [positions, width], are put in place.
    """
    for module in model.modules():
        if isinstance(module, TrOCRSinusoidalPositionalEmbedding) and module.weights.is_meta:
            module.weights = module.get_embedding(*module.weights.shape, module.padding_idx)
