"""Test batches of clips alike in length: results in order, bounded read-ahead."""

from collections.abc import Iterator, Sequence

from hypothesis import given
from hypothesis import strategies as st

from speech_runtime.transcribe.batching import in_batches


@given(lengths=st.lists(st.integers(0, 20), max_size=200), batch_size=st.integers(1, 7))
def test_results_come_in_order(lengths: list[int], batch_size: int) -> None:
    batches: list[Sequence[tuple[int, int]]] = []

    def run(batch: Sequence[tuple[int, int]]) -> Iterator[int]:
        batches.append(batch)
        return (position for position, _ in batch)

    found = list(in_batches(enumerate(lengths), lambda item: item[1], run, batch_size))
    assert found == list(range(len(lengths)))
    assert max(map(len, batches), default=0) <= batch_size
    assert len(batches) <= -(-len(lengths) // batch_size)  # no batch is split but the last


def test_batches_have_similar_lengths() -> None:
    lengths = [1, 9, 1, 9, 1, 9, 1, 9]
    batches: list[Sequence[int]] = []

    def run(batch: Sequence[int]) -> Sequence[int]:
        batches.append(batch)
        return batch

    assert list(in_batches(lengths, float, run, 4)) == lengths
    assert batches == [[1, 1, 1, 1], [9, 9, 9, 9]]


def test_an_endless_list_is_taken_as_it_is_needed() -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    results = in_batches(endless(), lambda item: -item, lambda batch: batch, 4)
    assert [next(results) for _ in range(100)] == list(range(1, 101))
    assert taken <= 100 + 16 * 4


def test_one_at_a_time_is_not_held_back() -> None:
    source = iter(range(3))
    results = in_batches(source, lambda _: 1 / 0, lambda batch: batch, 1)  # no length is asked for
    assert next(results) == 0
    assert next(source) == 1
