"""Compare results with those of transformers: near ties are told from errors, and counted.

A near tie is a choice that rounding decides. It is one where transformers itself gives our answer, ids and scores, once
its scores are moved by no more than `NUDGE`: what trades places is closer than 1e-5. That holds for every choice of a
search, whether it is among tokens, among beams or among finished hypotheses.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LogitsProcessor, LogitsProcessorList

from conftest import Pair
from speech_runtime.generation.output import GenerateOutput
from tally import Verdict

NUDGE = 5e-6
_NUDGES = 64

_NO_HYPOTHESIS = -1e5
"""Score below which a hypothesis is filler: transformers adds some, at -1e9, if there are fewer than beams."""

Settings = dict[str, Any]


@dataclass(frozen=True)
class Batch:
    """Model input of utterances; see `SpeechGenerator.encode`."""

    inputs: NDArray[np.float32]
    mask: NDArray[np.int64] | None


@dataclass(frozen=True)
class Answer:
    """The result of a search.

    Attributes:
        sequences: int64 [utterances, returned, length].
        scores: float32 [utterances, returned].
    """

    sequences: NDArray[np.int64]
    scores: NDArray[np.float32]


class _Nudged(LogitsProcessor):
    def __init__(self, seed: int) -> None:
        self._random = torch.Generator().manual_seed(seed)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores + (2 * torch.rand(scores.shape, generator=self._random) - 1) * NUDGE


def reference(pair: Pair, batch: Batch, settings: Settings, nudge: int | None = None) -> Answer:
    """Return the answer of transformers; with the seed of a `nudge`, its scores are perturbed first."""
    tensors = {name: torch.tensor(settings[name]) for name in ("decoder_input_ids",) if name in settings}
    if isinstance(starts := settings.get("decoder_start_token_id"), list):
        tensors["decoder_start_token_id"] = torch.tensor(starts)[:, None]
    if batch.mask is not None:
        tensors["attention_mask"] = torch.from_numpy(batch.mask)
    with torch.no_grad():
        found = pair.reference.generate(
            torch.from_numpy(batch.inputs),
            logits_processor=LogitsProcessorList([] if nudge is None else [_Nudged(nudge)]),
            return_dict_in_generate=True,
            output_scores=True,  # without them there are no scores of sequences
            output_logits=True,
            **settings | tensors,
        )
    utterances = len(batch.inputs)
    sequences = found.sequences.numpy().reshape(utterances, -1, found.sequences.shape[1])
    scores = _greedy_scores(pair, settings, found) if _greedy(settings) else found.sequences_scores
    return Answer(sequences, scores.numpy().reshape(utterances, -1))


def _greedy(settings: Settings) -> bool:
    return settings.get("num_beams", 1) == 1


def _greedy_scores(pair: Pair, settings: Settings, found: Any) -> torch.Tensor:
    """Mean log-probability of the tokens, the end included; transformers has none of its own for greedy search."""
    logprobs = torch.stack(found.logits, dim=1).log_softmax(dim=2)
    tokens = found.sequences[:, -logprobs.shape[1] :]
    chosen = logprobs.gather(2, tokens[:, :, None])[:, :, 0]
    ends = torch.tensor(settings.get("eos_token_id", pair.reference.generation_config.eos_token_id))
    ended = torch.isin(tokens, ends).int()
    open_ = (ended.cumsum(dim=1) - ended) == 0
    return (chosen * open_).sum(dim=1) / open_.sum(dim=1)


def verdicts(pair: Pair, batch: Batch, settings: Settings, expected: Answer, found: GenerateOutput) -> list[Verdict]:
    """Return for each utterance whether we agree with transformers: the same ids, and scores within 1e-4.

    Raises:
        AssertionError: it is not, and no near tie explains it.
    """
    utterances, returned = expected.scores.shape
    ours = Answer(
        found.sequences.reshape(utterances, returned, -1), found.sequences_scores.reshape(utterances, returned)
    )
    own = {name: value for name, value in settings.items() if name != "decoder_input_ids"}
    fill = pair.exported.generation_config.updated(own).fill_token_id
    same = _alike(ours, expected, fill)
    unexplained = ~same
    for seed in range(_NUDGES):
        if not unexplained.any():
            return ["same" if row else "near tie" for row in same]
        unexplained &= ~_alike(ours, reference(pair, batch, settings, seed), fill)
    row = int(unexplained.argmax())
    raise AssertionError(
        f"{settings}, {batch.inputs.shape}: utterance {row} is\n{ours.sequences[row]}\n{ours.scores[row]}\n"
        f"and in transformers\n{expected.sequences[row]}\n{expected.scores[row]}"
    )


def _alike(ours: Answer, theirs: Answer, fill: int) -> NDArray[np.bool_]:
    """Return for each utterance whether the hypotheses are the same, bool [utterances]."""
    width = max(ours.sequences.shape[2], theirs.sequences.shape[2])
    sequences = [
        np.pad(each.sequences, ((0, 0), (0, 0), (0, width - each.sequences.shape[2])), constant_values=fill)
        for each in (ours, theirs)
    ]
    same = (sequences[0] == sequences[1]).all(axis=2)
    same &= np.isclose(ours.scores, theirs.scores, atol=1e-4, rtol=1e-5)
    neither = (ours.scores < _NO_HYPOTHESIS) & (theirs.scores < _NO_HYPOTHESIS)
    alike: NDArray[np.bool_] = (same | neither).all(axis=1)
    return alike
