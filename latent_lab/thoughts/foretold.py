"""What a run is about to answer, as statements to be asked of its thoughts: that it is wrong, and which digit stands where.

They are about the run's *own* answer, right or not, which it has not written yet. A statement is drawn first, then whether it
holds, then a problem for which that is so: each is as often true as not, and no prompt holds its label.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
"""A problem's row of a store."""
Foretold = tuple[str, Callable[[Row], bool | None]]
"""What is stated, and whether it holds for a problem (None: its answer does not say)."""

WRONG = "answer wrong"
FEWEST = 20
"""Training problems for which a statement must hold, and as many for which it must not, or it could only be learned by heart."""


def is_wrong(row: Row) -> bool | None:
    """Whether the run answers a problem wrongly; None where nobody can say."""
    return None if row["correct"] is None else not row["correct"]


def digit_at(place: int, row: Row) -> str | None:
    """The digit at a place of the run's answer, units are 1; None where the answer has none there, or is no whole number."""
    answer = row["answer"] or ""
    return answer[-place] if answer.isascii() and answer.isdecimal() and place <= len(answer) else None


def digit_statement(digit: str, place: int) -> Foretold:
    """``7 at place 2``: of answers that are shorter it is neither true nor false."""

    def holds(row: Row) -> bool | None:
        found = digit_at(place, row)
        return None if found is None else found == digit

    return f"{digit} at place {place}", holds


def sides(rows: Sequence[Row], holds: Callable[[Row], bool | None]) -> dict[bool, list[int]]:
    """Numbers of the problems for which a statement holds, and of those for which it does not."""
    told = [holds(row) for row in rows]
    return {side: [i for i, said in enumerate(told) if said is side] for side in (True, False)}


def foretold(rows: Sequence[Row]) -> dict[str, list[Foretold]]:
    """By what is stated, ``wrong`` and ``digit``, the statements that training problems can teach."""
    longest = max((len(row["answer"]) for row in rows if digit_at(1, row)), default=0)
    digits = [digit_statement(digit, place) for place in range(1, longest + 1) for digit in "0123456789"]
    wanted: dict[str, list[Foretold]] = {"wrong": [(WRONG, is_wrong)], "digit": digits}
    return {
        kind: [each for each in stated if min(map(len, sides(rows, each[1]).values())) >= FEWEST]
        for kind, stated in wanted.items()
    }
