"""Multi-digit addition with its column-by-column carry steps, generated on the fly.

``21 + 62 =`` is solved from the units upwards, one step a column: ``1+2=3 write 3``; a carry in is added as a third term
(``8+4+1=13 write 3 carry 1``), and a carry left at the end is a step of its own (``carry 1 write 1``).
"""

import hashlib
import random
import re
from dataclasses import dataclass, field

from latent_lab.problems import SPLITS, Problem, Split


@dataclass
class Arithmetic:
    """Addition of two numbers with equally many digits; the number of digits is drawn for each problem."""

    digits: list[int] = field(default_factory=lambda: [2, 3, 4])
    """Digit counts to draw from."""
    probabilities: list[float] = field(default_factory=lambda: [0.3, 0.4, 0.3])
    """Probability of each entry of ``digits``."""
    train_size: int = 40_000
    """Problems in the training split."""
    valid_size: int = 512
    """Problems in the validation split."""
    test_size: int = 1_000
    """Problems in the test split."""
    seed: int = 0
    """Seed of the problems drawn (the split of operand pairs does not depend on it)."""

    def __post_init__(self) -> None:
        if not self.digits or any(d < 1 or d > 18 for d in self.digits):
            raise ValueError(f"digits={self.digits}: give one or more digit counts from 1 to 18")
        if len(self.probabilities) != len(self.digits):
            raise ValueError(
                f"probabilities={self.probabilities}: give one for each of digits={self.digits}, {len(self.digits)} in all"
            )
        if min(self.probabilities) < 0 or abs(sum(self.probabilities) - 1) > 1e-6:
            raise ValueError(f"probabilities={self.probabilities}: they must be non-negative and sum to 1")
        for name in ("train_size", "valid_size", "test_size"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: allowed are 0 and more")

    def load(self, split: Split) -> list[Problem]:
        """Return the split's problems; problem ``i`` depends on (seed, split, i) alone."""
        size = {"train": self.train_size, "valid": self.valid_size, "test": self.test_size}[split]
        return [self.problem(split, index) for index in range(size)]

    def problem(self, split: Split, index: int) -> Problem:
        """Draw problem ``index`` of a split: operands are redrawn until their unordered pair belongs to the split.

        The number of digits is drawn once, so its probabilities hold in every split; every number of digits has pairs in each
        (of the 55 with one digit, 3 are in valid and 4 in test).
        """
        rng = random.Random(f"{self.seed}/{split}/{index}")
        count = rng.choices(self.digits, self.probabilities)[0]
        low, high = (0 if count == 1 else 10 ** (count - 1)), 10**count - 1
        while True:
            a, b = rng.randint(low, high), rng.randint(low, high)
            if split_of_pair(a, b) == split:
                return addition(f"{split}-{index}", a, b)


def split_of_pair(a: int, b: int) -> Split:
    """Assign an unordered operand pair to one split for ever: 90% train, 5% valid, 5% test, by a hash of the pair."""
    low, high = min(a, b), max(a, b)
    bucket = int.from_bytes(hashlib.blake2b(f"{low}+{high}".encode(), digest_size=2).digest(), "big") % 20
    return SPLITS[0] if bucket < 18 else SPLITS[bucket - 17]


def addition(id: str, a: int, b: int) -> Problem:
    """Write the problem ``a + b`` with its carry steps; ``meta`` holds operands, digits and number of carries."""
    steps: list[str] = []
    carry = carries = 0
    for x, y in zip(reversed(str(a)), reversed(str(b)), strict=True):
        total = int(x) + int(y) + carry
        terms = f"{x}+{y}+{carry}" if carry else f"{x}+{y}"
        carry = total // 10
        carries += carry
        steps.append(f"{terms}={total} write {total % 10}" + (f" carry {carry}" if carry else ""))
    if carry:
        steps.append(f"carry {carry} write {carry}")
    meta = {"a": a, "b": b, "digits": len(str(a)), "carries": carries}
    return Problem(id, f"{a} + {b} =", tuple(steps), str(a + b), meta)


def sum_asked(question: str) -> dict[str, int]:
    """What ``addition`` puts into ``meta``, read off a question from elsewhere; empty where it asks for no such sum."""
    asked = re.fullmatch(r"([0-9]+) \+ ([0-9]+) =", question.strip())
    if asked is None or len(asked[1]) != len(asked[2]):
        return {}
    return addition("", int(asked[1]), int(asked[2])).meta
