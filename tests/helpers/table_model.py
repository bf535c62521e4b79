"""A language model that is a table of logits, for transformers and for our search: the same numbers without a graph."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from speech_runtime.bundle.model_facts import DecoderFacts
from speech_runtime.generation.call import generate
from speech_runtime.generation.call_options import CallOptions
from speech_runtime.generation.config import GenerationConfig
from speech_runtime.generation.output import GenerateOutput
from speech_runtime.generation.prompts import Prompt
from speech_runtime.generation.search.base import Candidates, PerBeam, all_tokens

_STATES = 97


def logits_of(table: NDArray[np.float32], sequences: NDArray[np.int64]) -> NDArray[np.float32]:
    """Logits [rows, vocabulary] of the next token, which depend on the whole of each sequence [rows, length]."""
    weights = np.arange(1, sequences.shape[1] + 1) * 31
    return table[(sequences * weights).sum(axis=1) % _STATES]


def random_table(seed: int, vocabulary: int, spread: float) -> NDArray[np.float32]:
    """Logits [states, vocabulary], normally distributed."""
    return (np.random.default_rng(seed).standard_normal((_STATES, vocabulary)) * spread).astype(np.float32)


class TableConfig(PretrainedConfig):
    model_type = "table"

    def __init__(self, vocab_size: int = 2, **settings: object) -> None:
        self.vocab_size = vocab_size
        super().__init__(**settings)


class TableModel(PreTrainedModel, GenerationMixin):
    """The table as a transformers model; decodes from the whole sequence, without a cache."""

    config_class = TableConfig

    def __init__(self, table: NDArray[np.float32]) -> None:
        super().__init__(TableConfig(vocab_size=table.shape[1], use_cache=False))
        self.table = table
        self.anchor = torch.nn.Parameter(torch.zeros(1))

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: object
    ) -> CausalLMOutput:
        logits = torch.from_numpy(logits_of(self.table, input_ids.numpy()))
        return CausalLMOutput(logits=logits[:, None])

    def prepare_inputs_for_generation(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: object
    ) -> dict[str, torch.Tensor]:
        return {"input_ids": input_ids}


class TableDecoder:
    """The table as a decoding session sees it: keeps each beam's sequence as its cache."""

    joins = False

    def __init__(self, table: NDArray[np.float32], top_k: int) -> None:
        self.table, self.top_k = table, top_k
        self.sequences = np.zeros((0, 0, 0), dtype=np.int64)

    def start(self, prompt: NDArray[np.int64], full_vocab: bool, keep_logits: bool = False) -> list[Candidates]:
        self.sequences = prompt[:, None]
        return self._answers(full_vocab)

    def step(self, tokens: PerBeam, beam_idx: PerBeam, full_vocab: bool, keep_logits: bool = False) -> list[Candidates]:
        kept = np.take_along_axis(self.sequences, np.array([list(row) for row in beam_idx])[:, :, None], axis=1)
        self.sequences = np.concatenate([kept, np.array(tokens)[:, :, None]], axis=2)
        return self._answers(full_vocab)

    def select_utterances(self, utterances: Sequence[int]) -> None:
        self.sequences = self.sequences[list(utterances)]

    def takes(self, newcomers: "TableDecoder") -> bool:
        return False

    def join(self, newcomers: "TableDecoder", beams: int, capacity: int) -> None:
        raise NotImplementedError

    def _answers(self, full_vocab: bool) -> list[Candidates]:
        return [self._answer(utterance, full_vocab) for utterance in self.sequences]

    def _answer(self, sequences: NDArray[np.int64], full_vocab: bool) -> Candidates:
        """Candidates of one utterance for the sequences [beams, length] of its beams."""
        logits = torch.from_numpy(logits_of(self.table, sequences))[None]
        is_finite = bool(np.isfinite(logits.numpy().max(axis=-1)).all())
        if full_vocab:
            return all_tokens(logits.numpy(), is_finite=is_finite)
        best, ids = torch.topk(torch.log_softmax(logits, dim=-1), self.top_k, dim=-1)
        return Candidates(ids.numpy(), best.numpy(), is_sorted=True, is_finite=is_finite, logits=logits.numpy)


def search(
    decoder: TableDecoder,
    facts: DecoderFacts,
    prompt: NDArray[np.int64],
    config: GenerationConfig,
    options: CallOptions | None = None,
) -> GenerateOutput:
    """Search for continuations of prompts int64 [batch, tokens], the start token included."""
    prompts = [Prompt(np.arange(len(prompt)), prompt)]
    return generate(lambda utterances, longest: decoder, facts, None, config, prompts, options or CallOptions())
