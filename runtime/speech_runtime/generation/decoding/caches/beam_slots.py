"""Which slot of a cache each beam of an utterance has, and how much of two slots is the same."""

from collections.abc import Sequence
from typing import NamedTuple, Self


class Copy(NamedTuple):
    """What is to be copied from one slot to another: all that the first has from position `begin` on."""

    source: int
    target: int
    begin: int


class BeamSlots:
    """A slot for each beam, which it keeps for as long as it is continued."""

    def __init__(self, beams: int) -> None:
        """Start with nothing in any slot."""
        self.slots = list(range(beams))
        self._same = [[0] * beams for _ in range(beams)]  # up to which position two slots have the same in them

    def widened(self, beam_idx: Sequence[int], length: int) -> Self:
        """Slots in the order of the beams, for any number of beams, each with what the one that it continues has."""
        continued = [self.slots[beam] for beam in beam_idx]
        new = type(self)(len(continued))
        new._same = [[length if one == other else self._same[one][other] for other in continued] for one in continued]
        return new

    def follow(self, beam_idx: Sequence[int], length: int) -> Sequence[Copy]:
        """Give every beam the slot of the one that it continues, and a copy of it to each further one.

        A copy takes the slot of a beam that ended, the one that has most in common with it.

        Args:
            beam_idx: the beams that are continued, one for each slot.
            length: positions that the slots have something at.
        """
        slots = self.slots = [self.slots[beam] for beam in beam_idx]
        taken = set(slots)
        if len(taken) == len(slots):
            return ()
        free = [slot for slot in range(len(slots)) if slot not in taken]
        copies = []
        for beam, source in enumerate(slots):
            if source in taken:
                taken.remove(source)
                continue
            same = self._same[source]
            target = max(free, key=same.__getitem__)
            free.remove(target)
            copies.append(Copy(source, target, same[target]))
            self._equate(source, target, length)
            slots[beam] = target
        return copies

    def _equate(self, source: int, target: int, length: int) -> None:
        same = self._same
        for slot, row in enumerate(same):
            row[target] = same[target][slot] = same[source][slot]
        same[source][target] = same[target][source] = length
