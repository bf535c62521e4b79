"""Rows of a step that cannot fit this machine's memory are refused before a search starts."""

from ...bundle.model_facts import DecoderFacts
from ...errors import GenerationError
from ...system import free_memory_bytes
from ..config import GenerationConfig

_FLOAT = 4
_TOKENS = 64
"""A cache grows, and most sequences end long before their maximal length: of longer ones only so many are counted."""
_SMALL = 2**26
"""Bytes that any process has: to ask the system takes 47 µs, and a search of a small model a few ms."""


def check_row_memory(batch: int, longest: int, facts: DecoderFacts, config: GenerationConfig) -> None:
    """Refuse a search whose cache and logits alone are too large for this process.

    Args:
        batch: utterances.
        longest: tokens that a sequence may have.
        facts: of the decoder.
        config: the settings; each beam is a row, and so is each sequence that is drawn.

    Raises:
        GenerationError: it says how much would be needed, and how much there is.
    """
    drawn = config.num_return_sequences if config.do_sample and config.num_beams == 1 else 1
    rows = batch * config.num_beams * drawn
    tokens = facts.cache_length or min(longest - 1, _TOKENS)
    cache = 2 * facts.layers * facts.heads * facts.head_dim * tokens
    needed = rows * _FLOAT * (cache + facts.vocab_size)
    if needed > _SMALL and needed > (free := free_memory_bytes()):
        named = f"num_return_sequences {drawn:,}" if drawn > 1 else f"num_beams {config.num_beams:,}"
        raise GenerationError(
            f"{named} × {batch:,} utterances need {needed / 2**30:,.2f} GiB of memory or more for their {rows:,} rows, "
            f"and this process may take {free / 2**30:,.2f} GiB; set {named.split()[0]} or batch_size lower"
        )
