"""Multiplication of two n-digit numbers with partial products: the benchmark of iCoT (arXiv 2405.14838, section 4.1).

The published rows write every number digit by digit from the units upwards. 3719 * 3349 is ``9 1 7 3 * 9 4 3 3``; its chain is
``1 7 4 3 3 + 0 6 7 8 4 1 ( 1 3 2 2 8 1 ) + 0 0 7 5 1 1 1 ( 1 3 9 7 9 2 1 ) + 0 0 0 7 5 1 1 1``: the first number times each digit
of the second, with the sum so far in brackets after every product but the first (it is its own sum) and the last (its sum is
the answer, ``1 3 9 4 5 4 2 1``). Zeros keep columns in place: product i has n + 1 + i digits, so has its sum, the answer has 2n.

Each product with its sum is a step here: the steps joined by blanks are the published chain.
"""

import random
from dataclasses import dataclass, field

from latent_lab.problems import Problem, Split
from latent_lab.problems.arithmetic import check_digits, split_of_pair
from latent_lab.problems.generated import OneByOne


@dataclass
class Multiplication(OneByOne):
    """The product of two numbers with equally many digits; the number of digits is drawn for each problem."""

    digits: list[int] = field(default_factory=lambda: [4])
    """Digit counts, drawn from with equal probability (published: one count a model, of 4, 5, 7, 9 and 11)."""
    spaced: bool = True
    """Write a blank before every digit (as published: its tokenizer reads both as one token; the digit-level one reads two)."""
    second_digits: int | None = None
    """Digits of the second number; null: as many as the first has (published)."""
    reverse: bool = True
    """Write numbers from the units upwards, as published; false writes them as people do, with the zeros that keep columns."""

    def __post_init__(self) -> None:
        check_digits(self.digits)
        if self.second_digits is not None:
            check_digits([self.second_digits])
        super().__post_init__()

    def problem(self, split: Split, index: int) -> Problem:
        """Draw problem ``index`` of a split: operands without leading zeros, until their unordered pair belongs to the split.

        Differs from paper: there a problem is in one split, but its operands in the other order may be in another.
        """
        rng = random.Random(f"{self.seed}/{split}/{index}")
        count = rng.choice(self.digits)
        counts = (count, self.second_digits or count)
        while True:
            a, b = (rng.randint(10 ** (n - 1), 10**n - 1) for n in counts)
            if split_of_pair(a, b) == split:
                return multiplication(f"{split}-{index}", a, b, reverse=self.reverse, spaced=self.spaced)


def multiplication(id: str, a: int, b: int, *, reverse: bool = True, spaced: bool = True) -> Problem:
    """Write the problem ``a * b`` with a step for each digit of ``b``; ``meta`` holds a, b and digits."""
    count, places = len(str(a)), len(str(b))

    def written(number: int, width: int) -> str:
        digits = f"{number:0{width}}"
        return " ".join(reversed(digits) if reverse else digits)

    steps = []
    total = 0
    for place, digit in enumerate(reversed(str(b))):
        product = a * int(digit) * 10**place
        total += product
        step = written(product, count + 1 + place)
        if place:
            step = f"+ {step}"
            if place < places - 1:
                step += f" ( {written(total, count + 1 + place)} )"
        steps.append(step)
    blank = " " if spaced else ""
    question = f"{written(a, count)} * {written(b, places)}"
    question, answer, *steps = (text.replace(" ", blank) for text in (question, written(total, count + places), *steps))
    return Problem(id, question, tuple(steps), answer, {"a": a, "b": b, "digits": count})
