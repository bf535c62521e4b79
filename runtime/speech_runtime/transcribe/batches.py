"""Many clips in batches of about the same length, for little padding; results in the order they were given."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_ITEMS = 2**16
"""The ceiling of a batch. Memory ends long before."""

_BATCHES_AHEAD = 16
"""So many batches are sorted together: the more, the less padding, and the later the first result."""


def by_length(
    items: Iterable[Item],
    length: Callable[[Item], float],
    run: Callable[[Sequence[Item]], Iterable[Result]],
    batch_size: int,
) -> Iterator[Result]:
    """Run batches of items of similar lengths; no more than 16 batches of items and results are held at any time.

    Args:
        items: taken as they are needed.
        length: of an item, in any unit; not asked where there is nothing to sort.
        run: a batch to one result for each of its items.
        batch_size: items of a batch at most.

    Yields:
        Results in the order of `items`, each as soon as those before it are known.
    """
    remaining = iter(items)
    while ahead := list(islice(remaining, batch_size * _BATCHES_AHEAD if batch_size > 1 else 1)):
        order = list(range(len(ahead)))
        if len(ahead) > batch_size:
            order.sort(key=[length(item) for item in ahead].__getitem__)
        known: dict[int, Result] = {}
        position = 0
        for begin in range(0, len(order), batch_size):
            batch = order[begin : begin + batch_size]
            known.update(zip(batch, run([ahead[i] for i in batch]), strict=True))
            while position in known:
                yield known.pop(position)
                position += 1
