"""Names of the graphs, and of their inputs and outputs: the exporter writes them, the backends bind them.

The docstrings of `speech_export.tracing.graphs` give the shapes. These names only change together with
`bundle.manifest.FORMAT_VERSION`.
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
LOGITS = "logits"
TOP_LOGPROBS = "top_logprobs"
TOP_IDS = "top_ids"


def cache_names(kind: str, layers: int) -> list[str]:
    """Names of one cache's tensors, key and value of each layer in turn; `kind` is past, present or cross."""
    return [f"{kind}.{layer}.{part}" for layer in range(layers) for part in ("key", "value")]


Cache = Literal["growing", "in_place", "static"]
"""How `decoder_with_past` keeps its self-attention cache.

- `growing`: each step makes a longer one, in the order of `beam_idx`;
- `in_place`: each writes behind the `past_length` tokens that are in it, where there is room for more;
- `static`: of one length for ever; each step makes another one of the `past_rows` of all [batch × past_beams], with its
  own token behind the first `past_length`. What is behind them in the past does not matter.
"""

_PLACES = {"growing": (BEAM_IDX,), "in_place": (PAST_LENGTH,), "static": (PAST_ROWS, PAST_LENGTH)}


def graph_inputs(graph: str, input_name: str, layers: int, cache: Cache = "growing") -> list[str]:
    """Input names of `graph` in order, for an encoder that takes `input_name`, and `layers` decoder layers."""
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
    """Output names of `graph` in order, for `layers` decoder layers."""
    return {
        ENCODER: [ENCODER_HIDDEN_STATES, ENCODER_ATTENTION_MASK],
        DECODER_INIT: cache_names("cross", layers),
        DECODER_WITH_PAST: [LOGITS, TOP_LOGPROBS, TOP_IDS, *cache_names("present", layers)],
    }[graph]
