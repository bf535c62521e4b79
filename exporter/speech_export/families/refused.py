"""Families that are known not to work, with the reason."""

from .registry import register_refusal

register_refusal("it keeps no cache for cross-attention in transformers", "big_bird")
register_refusal(
    "its cross-attention is broken in transformers: the view of the keys uses the shape of the queries", "megatron-bert"
)
register_refusal("its tokens are audio codes in several books, not text", "musicgen", "musicgen_melody")
register_refusal(
    "its cross-attention does not run in transformers: with multi_query it is not implemented, without it the split of "
    "keys and values has the wrong size",
    "gpt_bigcode",
)
