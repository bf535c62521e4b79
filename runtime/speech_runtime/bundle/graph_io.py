"""Names of the graphs and of their inputs and outputs: the exporter writes them, the backends bind them.

The docstrings of `speech_export.tracing.graphs` give the shapes. A change of names needs a new
`bundle.formats.FORMAT_VERSION`.
"""

from typing import Literal

ENCODER = "encoder"
DECODER_INIT = "decoder_init"
DECODER_WITH_PAST = "decoder_with_past"
GRAPHS = (ENCODER, DECODER_INIT, DECODER_WITH_PAST)

ATTENTION_MASK = "attention_mask"
ENCODER_HIDDEN_STATES = "encoder_hidden_states"
ENCODER_ATTENTION_MASK = "encoder_attention_mask"
INPUT_IDS = "input_ids"
BEAM_IDX = "beam_idx"
PAST_ROWS = "past_rows"
PAST_LENGTH = "past_length"
POSITION_IDS = "position_ids"
WRITE_SLOT = "write_slot"
SLOT_MASK = "slot_mask"
LOGITS = "logits"
TOP_LOGPROBS = "top_logprobs"
TOP_IDS = "top_ids"


def cache_names(kind: str, layers: int) -> list[str]:
    """Return the names of one cache's tensors, key and value of each layer; `kind` is past, present or cross."""
    return [f"{kind}.{layer}.{part}" for layer in range(layers) for part in ("key", "value")]


Cache = Literal["growing", "in_place", "static", "tree"]
"""Kind of self-attention cache of `decoder_with_past`.

- `growing`: each step returns a longer cache, its rows selected by `beam_idx`;
- `in_place`: each step writes after the `past_length` tokens in the cache, which has spare room;
- `static`: the cache has a fixed length. Each step returns a new one with the rows `past_rows` of all
  [batch × past_beams] and its own token after the first `past_length`. Anything beyond those is ignored;
- `tree`: the beams of an utterance share slots. Each step writes the tokens of all beams from `write_slot` on, and
  `slot_mask` says which slots each of them sees.
"""

_PLACES = {
    "growing": (BEAM_IDX,),
    "in_place": (PAST_LENGTH,),
    "static": (PAST_ROWS, PAST_LENGTH),
    "tree": (POSITION_IDS, WRITE_SLOT, SLOT_MASK),
}


def graph_inputs(graph: str, input_name: str, layers: int, cache: Cache = "growing") -> list[str]:
    """Return the input names of `graph` in order, for the encoder's `input_name` and `layers` decoder layers."""
    return {
        ENCODER: [input_name, ATTENTION_MASK],
        DECODER_INIT: [ENCODER_HIDDEN_STATES],
        DECODER_WITH_PAST: [
            *(INPUT_IDS, *_PLACES[cache], ENCODER_ATTENTION_MASK),
            *cache_names("past", layers),
            *cache_names("cross", layers),
        ],
    }[graph]


def graph_outputs(graph: str, layers: int) -> list[str]:
    """Return the output names of `graph` in order, for `layers` decoder layers."""
    return {
        ENCODER: [ENCODER_HIDDEN_STATES, ENCODER_ATTENTION_MASK],
        DECODER_INIT: cache_names("cross", layers),
        DECODER_WITH_PAST: [LOGITS, TOP_LOGPROBS, TOP_IDS, *cache_names("present", layers)],
    }[graph]
