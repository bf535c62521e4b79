"""The likeliest words of a step, with their log-probabilities, in operations that keep a GPU busy.

ONNX Runtime's TopK on CUDA gives each row to a single block of threads, and a step has as few rows as beams. So each
row is cut into parts, whose best words compete in a second TopK. The largest logit of a row is then known, and one sum
normalises the winners alone.
"""

from math import isqrt

import torch
from torch import Tensor
from torch.nn.functional import pad

_IN_ORDER = 256
"""Length of a row up to which TopK on CUDA takes the lower index first where numbers are equal; beyond that, any."""
_WORTHWHILE = 2**14
"""Number of words from which on rows are cut into parts."""


def best_words(logits: Tensor, count: int, beams: int, tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits by beam, and the best words of each row, the lower one first where two are equally likely.

    Args:
        logits: Logits of the queries, float [batch, beams · tokens, words].
        count: Number of words to return, at most all.
        beams: Number of beams, whose tokens are the queries.
        tokens: Number of tokens of each beam.

    Returns:
        Logits [batch, beams, tokens, words]; log-probabilities [..., count], best first; and their words, int64.
    """
    batch, _, words = logits.shape
    best, ids = torch.topk(logits, count) if words <= _IN_ORDER else _in_order(*_largest(logits, count))
    logits, best, ids = (each.view(batch, beams, tokens, each.shape[2]) for each in (logits, best, ids))
    highest = best[..., :1]
    total = torch.exp(logits - highest).sum(-1, keepdim=True)
    return logits, best - highest - torch.log(total), ids


def parts_of(words: int, count: int) -> int:
    """Return the number of parts that make both TopK equally long, each part and all of its winners; 1 for few words.

    Each part has at least `count` words.
    """
    return 1 if words < _WORTHWHILE else max(1, min(isqrt(words // count), words // count))


def _largest(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the largest of logits [batch, queries, words], and their words."""
    batch, queries, words = logits.shape
    parts = parts_of(words, count)
    if parts == 1:
        return torch.topk(logits, count)
    width = -(-words // parts)
    padded = pad(logits, (0, parts * width - words), value=-torch.inf)
    best, places = torch.topk(padded.view(batch, queries, parts, width), count)
    ids = places + torch.arange(0, parts * width, width)[:, None]
    best, winners = torch.topk(best.flatten(2), count)
    return best, ids.flatten(2).gather(2, winners)


def _in_order(best: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Put the words of equal logits in order, where TopK may have taken them in any.

    Which of those that are equal to the last of them are among them is not changed.
    """
    count = ids.shape[2]
    ids, places = torch.topk(ids, count, largest=False)
    best, places = torch.topk(best.gather(2, places), count)
    return best, ids.gather(2, places)
