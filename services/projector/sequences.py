"""The numbers of a sender of KeyUsed in one partition (DESIGN section 3). Pure.

A sender numbers its records 1, 2, 3 … and may send one again; records may be lost, or come later after all.
"""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Sequence:
    """`last` is the largest number seen; `gaps` are the ranges below it (both ends included) that were not seen."""

    last: int = 0
    gaps: list[tuple[int, int]] = field(default_factory=list)

    def take(self, number: int) -> bool:
        """Whether the record of this number counts: False for a duplicate."""
        if number > self.last:
            if number > self.last + 1:
                self.gaps.append((self.last + 1, number - 1))
            self.last = number
            return True
        for place, (first, last) in enumerate(self.gaps):
            if first <= number <= last:
                left = [(first, number - 1)] if first < number else []
                right = [(number + 1, last)] if number < last else []
                self.gaps[place : place + 1] = left + right
                return True
        return False


def first_seen(number: int, whole: bool) -> Sequence:
    """Before the first number of a sender. Where the log no longer begins at offset 0 (`whole` is False), what came
    before that number expired and is no gap.
    """
    return Sequence() if whole else Sequence(last=number - 1)
