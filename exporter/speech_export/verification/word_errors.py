"""Word error rate: the words that are wrong, missing or extra, divided by the words of the reference.

Written by hand: jiwer would add itself and rapidfuzz, a native library, to what an export needs. A test compares both.
"""

from collections.abc import Sequence


def word_error_rate(references: Sequence[str], transcripts: Sequence[str]) -> float:
    """Return the rate over all utterances; 0.01 is one word in a hundred. Case counts."""
    words = sum(len(reference.split()) for reference in references)
    errors = sum(
        edit_distance(reference.split(), transcript.split())
        for reference, transcript in zip(references, transcripts, strict=True)
    )
    return errors / words if words else float(errors > 0)


def edit_distance(expected: Sequence[object], found: Sequence[object]) -> int:
    """Return the smallest number of items to replace, remove or insert to get `found` from `expected` (Levenshtein)."""
    row = list(range(len(found) + 1))
    for index, wanted in enumerate(expected, start=1):
        diagonal, row[0] = row[0], index
        for column, word in enumerate(found, start=1):
            diagonal, row[column] = row[column], min(diagonal + (wanted != word), row[column] + 1, row[column - 1] + 1)
    return row[-1]
