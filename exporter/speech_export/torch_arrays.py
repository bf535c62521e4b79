"""Tensors of torch for the runtime, which takes and returns arrays: model input, functions of a call, and outputs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.generation.utils import GenerateBeamEncoderDecoderOutput

from speech_runtime.generation.output import GenerateOutput
from speech_runtime.generation.search.stopping import StoppingCriterion
from speech_runtime.generation.token_scores.maths import LogitsProcessor, Scores, Sequences

TorchLogitsProcessor = Callable[[Tensor, Tensor], Tensor]
TorchStoppingCriterion = Callable[[Tensor, None], Tensor]


def array_of(value: Any) -> Any:
    """Return a tensor as an array, in float32 if it is floating-point; anything else as it is."""
    if not isinstance(value, Tensor):
        return value
    return (value.float() if value.is_floating_point() else value).detach().cpu().numpy()


def device_of(given: dict[str, Any]) -> torch.device:
    """Return the device of the first tensor; the CPU if there is none."""
    return next((value.device for value in given.values() if isinstance(value, Tensor)), torch.device("cpu"))


def on_rows(processor: TorchLogitsProcessor) -> LogitsProcessor:
    """Return a processor of transformers, whose rows are utterances × beams, as one of the runtime."""

    def apply(sequences: Sequences, scores: Scores) -> Scores:
        ids = torch.from_numpy(sequences).flatten(0, 1)
        processed = processor(ids, torch.from_numpy(scores).flatten(0, 1))
        return array_of(processed).reshape(*scores.shape[:2], -1)  # type: ignore[no-any-return]

    return apply


def on_arrays(criterion: TorchStoppingCriterion) -> StoppingCriterion:
    """Return a criterion of transformers as one of the runtime, which has no scores for it."""
    return lambda sequences: array_of(criterion(torch.from_numpy(sequences), None))


def torch_output(found: GenerateOutput, device: torch.device) -> GenerateBeamEncoderDecoderOutput:
    """Return an output of the runtime as transformers returns one, with its tensors on `device`."""

    def tensors(steps: tuple[NDArray[np.float32], ...] | None) -> tuple[Tensor, ...] | None:
        return None if steps is None else tuple(torch.tensor(step, device=device) for step in steps)

    return GenerateBeamEncoderDecoderOutput(
        sequences=torch.tensor(found.sequences, device=device),
        sequences_scores=torch.tensor(found.sequences_scores, device=device),
        scores=tensors(found.scores),
        logits=tensors(found.logits),
        beam_indices=torch.tensor(found.beam_indices, device=device),
    )
