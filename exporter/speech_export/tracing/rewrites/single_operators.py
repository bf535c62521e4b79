"""Modules of text decoders that are traced into several operators, and have an equal that is traced into one.

GPT-2's linear layers are written as `addmm` of flattened rows, with a Reshape before and after it; its activation, the
tanh approximation of GELU, as a formula of eight operations.
"""

import torch
from torch import nn
from transformers.activations import FastGELUActivation, NewGELUActivation
from transformers.pytorch_utils import Conv1D

from .replacement import Replacement


def linear_layer(module: nn.Module) -> Replacement | None:
    """Return a linear layer that shares the weight of a `Conv1D`; None for other modules."""
    if not isinstance(module, Conv1D):
        return None
    inputs, outputs = module.weight.shape
    linear = nn.Linear(inputs, outputs, device="meta")
    linear.weight, linear.bias = nn.Parameter(module.weight.T, requires_grad=False), module.bias
    return Replacement(linear, torch.randn(1, 2, inputs))


def tanh_gelu(module: nn.Module) -> Replacement | None:
    """Return the operator for the tanh approximation of GELU written as a formula; None for other modules."""
    if not isinstance(module, (FastGELUActivation, NewGELUActivation)):
        return None
    return Replacement(nn.GELU(approximate="tanh"), torch.linspace(-6, 6, 97))
