"""The self-attention cache of one decoder layer, with the beams as a dimension of their own.

transformers' cache has one row for each beam of each utterance. Kept that way, the whole cache would be copied twice a
step just to change its shape: from the graph's input, and into its output.
"""

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer


class BeamLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of the beams that go on, to which one step appends its own.

    Attributes:
        present: keys and values [batch, beams, heads, past, head_dim]; once updated [..., past + tokens, head_dim].
    """

    def __init__(self, past: tuple[Tensor, Tensor], beam_idx: Tensor) -> None:
        """Select what each beam goes on from.

        Args:
            past: keys and values, each [batch, past_beams, heads, past, head_dim].
            beam_idx: int64 [batch, beams].
        """
        super().__init__()
        self._batch, self._beams = beam_idx.shape
        utterances = torch.arange(self._batch).unsqueeze(1)
        self.present = past[0][utterances, beam_idx], past[1][utterances, beam_idx]
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Append states [batch × beams, heads, tokens, head_dim]; returns all of them, in that shape."""
        new = (states.view(self._batch, self._beams, *states.shape[1:]) for states in (key_states, value_states))
        key, value = (torch.cat(pair, dim=3) for pair in zip(self.present, new, strict=True))
        self.present = key, value
        self.keys, self.values = key.flatten(0, 1), value.flatten(0, 1)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Tokens that are kept."""
        return self.present[0].shape[3]
