"""Word error rate: the words that are wrong, missing or extra, over those that were said."""

from collections.abc import Sequence


def word_error_rate(references: Sequence[str], transcripts: Sequence[str]) -> float:
    """Of all utterances together; 0.01 is one word in a hundred. Case counts as much as it does in the references."""
    words = sum(len(reference.split()) for reference in references)
    errors = sum(
        edit_distance(reference.split(), transcript.split())
        for reference, transcript in zip(references, transcripts, strict=True)
    )
    return errors / words if words else float(errors > 0)


def edit_distance(expected: Sequence[str], found: Sequence[str]) -> int:
    """The fewest words to replace, leave out or put in that make one sequence of the other (Levenshtein)."""
    row = list(range(len(found) + 1))
    for index, wanted in enumerate(expected, start=1):
        diagonal, row[0] = row[0], index
        for column, word in enumerate(found, start=1):
            diagonal, row[column] = row[column], min(diagonal + (wanted != word), row[column] + 1, row[column - 1] + 1)
    return row[-1]
