"""What a search returns."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class GenerateOutput:
    """Sequences and what is known about them, as `return_dict_in_generate` of transformers gives it, and more.

    Rows are utterances × `num_return_sequences`, the best first.

    Attributes:
        sequences: int64 [rows, length]: prompt, tokens, end token, padding.
        sequences_scores: float32 [rows]: log-probability / (new tokens ** length_penalty).
        token_logprobs: float32 [rows, new tokens], the model's own, before any setting changed them; 0 behind the end.
        beam_indices: int64 [rows, new tokens]: the row of `scores` that each token was chosen on; -1 behind the end.
        steps: of the decoder; fewer than transformers' where the result is certain earlier.
        lengths: int64 [rows]: tokens of each sequence, prompt and end token included, padding not.
        finished: strings [rows], how each sequence ended: "end", by an end token, a stop string or a criterion;
            "length", cut off at its maximal length; "time", by `max_time`; "stopped", by `cancel`.
        scores: with `output_scores`: of every step what was chosen by, float32 [utterances × beams, vocabulary].
        logits: with `output_logits`: of every step, float32 [utterances × beams, vocabulary].
    """

    sequences: NDArray[np.int64]
    sequences_scores: NDArray[np.float32]
    token_logprobs: NDArray[np.float32]
    beam_indices: NDArray[np.int64]
    steps: int
    lengths: NDArray[np.int64]
    finished: NDArray[np.str_]
    scores: tuple[NDArray[np.float32], ...] | None = None
    logits: tuple[NDArray[np.float32], ...] | None = None
