"""Pairs of sums for column interchange, and the answers that exchanges should lead to, worked out by hand.

No model is in sight here: a sum is taken column by column, units first, and one column may say something else.
"""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from latent_lab.problems import Problem
from latent_lab.problems.arithmetic import addition, sum_asked

DONORS = ("independent", "same_carry", "flipped_carry", "last_column", "final_carry")
APART = ("last_column", "final_carry")
"""Independent donors whose rows stand apart and count in no other."""
COMMUTED = ("commuted", "commuted_column")
"""Donors that are the recipient itself with its operands exchanged, all of them or their digits in one column."""


class NoSum(ValueError):
    """A question that asks for no sum of two equally long numbers."""


@dataclass(frozen=True)
class Columns:
    """A sum column by column, units first."""

    a: tuple[int, ...]
    b: tuple[int, ...]

    @classmethod
    def of(cls, problem: Problem) -> "Columns":
        """Read off a question; :class:`NoSum` where it asks for none."""
        asked = sum_asked(problem.question)
        if not asked:
            raise NoSum(f"{problem.id}: {problem.question!r} asks for no sum of two equally long numbers")
        return cls(*(tuple(int(digit) for digit in reversed(str(asked[name]))) for name in "ab"))

    def problem(self, name: str) -> Problem:
        """The sum as a problem."""
        return addition(name, *(int("".join(map(str, reversed(part)))) for part in (self.a, self.b)))

    def commuted(self, columns: Collection[int]) -> "Columns":
        """The same sum with the operands exchanged in some columns: no digit and no carry of it changes."""
        rows = [(y, x) if k in columns else (x, y) for k, (x, y) in enumerate(zip(self.a, self.b, strict=True))]
        a, b = zip(*rows, strict=True)
        return Columns(a, b)

    def added(self, said: Mapping[int, tuple[int, int]] | None = None) -> list[tuple[int, int]]:
        """``(digit, carry out)`` of each column; columns in ``said`` say that instead, and later ones add on what they say."""
        carry, found = 0, []
        for k, (x, y) in enumerate(zip(self.a, self.b, strict=True)):
            digit, carry = (said or {}).get(k, ((x + y + carry) % 10, (x + y + carry) // 10))
            found.append((digit, carry))
        return found

    def answer(self, said: Mapping[int, tuple[int, int]] | None = None) -> str:
        """The sum, composed anew from the columns in ``said`` on."""
        found = self.added(said)
        return spelled([digit for digit, _ in found], found[-1][1])

    def with_digit(self, column: int, digit: int) -> str:
        """The right answer with one digit replaced, whatever that does to the sum."""
        found = self.added()
        return spelled([digit if k == column else own for k, (own, _) in enumerate(found)], found[-1][1])

    def with_final_carry(self, carry: int) -> str:
        """The right answer with another carry left at the end."""
        return spelled([digit for digit, _ in self.added()], carry)


def spelled(digits: Sequence[int], carry: int) -> str:
    """Digits from the units up, with the carry left at the end, as a number without leading zeros."""
    return str(int("".join(map(str, [carry, *reversed(digits)]))))


@dataclass(frozen=True)
class Pair:
    """A recipient, its donor, the column exchanged, and the two answers worked out by hand."""

    recipient: Problem
    donor: Problem
    column: int
    donors: str
    """One of ``DONORS`` or ``COMMUTED``."""
    digit: str
    """The recipient's answer with the donor's digit in the column."""
    composed: str
    """The recipient's answer with digit and carry out of the column from the donor."""
    next: str
    """The same for the next column, or the final carry from the donor."""

    @property
    def apart(self) -> str | None:
        """The row that stands apart to which a pair belongs, if it does: what concerns the final carry counts in no other."""
        if self.donors == "flipped_carry" and self.column == len(Columns.of(self.recipient).a) - 1:
            return "last_column"
        return self.donors if self.donors in APART else None

    def target(self, kind: str) -> str:
        """What the answer should become when a ``kind`` of thing is exchanged."""
        return {"thought": self.composed, "residual": self.next}.get(kind, self.digit)

    def is_telling(self, kind: str) -> bool:
        """Whether the outcomes can be told apart: an independent donor's answer and both others must differ."""
        others = {self.recipient.answer} | ({self.donor.answer} if self.donors == "independent" else set())
        return self.target(kind) not in others and (self.donors != "independent" or len(others) == 2)


def pair(recipient: Problem, donor: Problem, column: int, donors: str) -> Pair:
    """Work out the targets."""
    own, there = Columns.of(recipient), Columns.of(donor).added()
    last = own.with_final_carry(there[-1][1])
    if donors == "final_carry":
        return Pair(recipient, donor, column, donors, last, last, recipient.answer)
    after = own.answer({column + 1: there[column + 1]}) if column + 1 < len(there) else last
    return Pair(
        recipient, donor, column, donors, own.with_digit(column, there[column][0]), own.answer({column: there[column]}), after
    )


def independent_pairs(problems: Sequence[Problem], most: int, seed: int) -> list[Pair]:
    """For each column up to ``most`` pairs of other problems with as many digits, telling for keys and values and for thoughts.

    All problems are of one number of digits. Recipients take turns; a donor is the problem so many places further on in an order
    drawn from ``seed``, one place more each turn. Of the two rows that stand apart each has half as many.
    """
    order = random.Random(seed).sample(list(problems), len(problems))
    digits = len(Columns.of(order[0]).a) if order else 0
    final = {p.id: Columns.of(p).added()[-1][1] for p in order}
    places = [(column, "independent") for column in range(digits)] + [(digits - 1, "last_column"), (digits, "final_carry")]
    found: list[Pair] = []
    for column, donors in places if digits else []:
        wanted = most if donors == "independent" else most // 2
        chosen: list[Pair] = []
        for shift in range(1, len(order)):
            for i, recipient in enumerate(order):
                donor = order[(i + shift) % len(order)]
                fits = column < digits - 1 or (final[recipient.id] == final[donor.id]) == (donors == "independent")
                if len(chosen) == wanted or not fits:
                    continue
                made = pair(recipient, donor, column, donors)
                if made.is_telling("cache") and made.is_telling("thought"):
                    chosen.append(made)
            if len(chosen) == wanted:
                break
        found += chosen
    return found


def minimal_pairs(problems: Sequence[Problem], most: int, seed: int) -> list[Pair]:
    """For each column, up to ``most`` recipients with a copy of themselves in which only the column's first digit differs.

    As many again for each of: the copy keeps the column's carry, the copy flips it. The digit is drawn from those that do so.
    """
    rng = random.Random(seed)
    order = rng.sample(list(problems), len(problems))
    digits = len(Columns.of(order[0]).a) if order else 0
    found: list[Pair] = []
    for column in range(digits):
        for donors in ("same_carry", "flipped_carry"):
            made = [p for problem in order if (p := minimal_pair(problem, column, donors, rng)) is not None]
            found += made[:most]
    return found


def minimal_pair(problem: Problem, column: int, donors: str, rng: random.Random) -> Pair | None:
    """A copy in which one digit of one column differs; None where no digit does to the carry what is asked."""
    own = Columns.of(problem)
    carry_in = own.added()[column - 1][1] if column else 0
    carry = own.added()[column][1]
    top = column == len(own.a) - 1
    allowed = [
        digit
        for digit in range(1 if top else 0, 10)
        if digit != own.a[column] and ((digit + own.b[column] + carry_in) // 10 == carry) == (donors == "same_carry")
    ]
    if not allowed:
        return None
    digit = rng.choice(allowed)
    changed = Columns(tuple(digit if k == column else x for k, x in enumerate(own.a)), own.b)
    return pair(problem, changed.problem(f"{problem.id}/{column}={digit}"), column, donors)


def commuted_pairs(problems: Sequence[Problem], most: int, seed: int) -> list[Pair]:
    """For each column up to ``most`` recipients, their two digits there not alike, with each of the donors of ``COMMUTED``.

    Whatever is exchanged, every target is the recipient's own answer. All problems are of one number of digits.
    """
    order = random.Random(seed).sample(list(problems), len(problems))
    digits = len(Columns.of(order[0]).a) if order else 0
    found: list[Pair] = []
    for column in range(digits):
        chosen = [p for p in order if (own := Columns.of(p)).a[column] != own.b[column]][:most]
        for donors, columns in zip(COMMUTED, (range(digits), [column]), strict=True):
            named = "commuted" if donors == "commuted" else f"commuted={column}"
            found += [pair(p, Columns.of(p).commuted(columns).problem(f"{p.id}/{named}"), column, donors) for p in chosen]
    return found
