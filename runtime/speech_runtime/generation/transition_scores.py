"""Scores of the tokens of sequences, as `compute_transition_scores` of transformers computes them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import GenerationError
from .token_scores.maths import log_softmax


def transition_scores(
    sequences: ArrayLike, scores: Sequence[ArrayLike], beam_indices: ArrayLike | None, normalize_logits: bool
) -> NDArray[np.float32]:
    """Return the score of each new token; see `SpeechGenerator.compute_transition_scores`.

    Raises:
        GenerationError: There are no scores, or the shapes do not fit together.
    """
    if not isinstance(scores, Sequence) or not scores:
        raise GenerationError("scores must be those of generate() with output_scores=True, one array for each step")
    tokens, stacked = np.asarray(sequences), np.stack([np.asarray(step) for step in scores])
    if normalize_logits:
        stacked = log_softmax(stacked)
    steps, rows, vocab_size = stacked.shape
    beams = np.arange(rows)[:, None].repeat(steps, 1) if beam_indices is None else np.asarray(beam_indices)
    if tokens.ndim != 2 or beams.ndim != 2 or len(beams) != len(tokens):
        has = f"the scores have {rows} rows" if beam_indices is None else f"beam_indices have {len(beams)} rows"
        raise GenerationError(
            f"sequences have the shape {list(tokens.shape)} and {has}; give sequences, scores and beam_indices of one "
            "output"
        )
    beams = beams[:, : int((beams >= 0).sum(axis=1).max())]  # transformers' are as long as the longest possible
    new = tokens[:, tokens.shape[1] - beams.shape[1] :]
    if beams.shape[1] > steps or new.shape != beams.shape or new.max() >= vocab_size or beams.max() >= rows:
        raise GenerationError(
            f"{beams.shape[1]} new tokens do not fit the scores of {steps} steps; they are of another output"
        )
    chosen = stacked[np.arange(beams.shape[1]), np.maximum(beams, 0), np.maximum(new, 0)]
    return np.where(beams < 0, np.float32(0), chosen).astype(np.float32)
