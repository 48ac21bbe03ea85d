"""How much a plan says, in bits."""

import math
import random
from collections import Counter
from collections.abc import Sequence as Seq
from statistics import fmean

SHUFFLES = 20


def entropy(values: Seq[str]) -> float:
    """Bits in a value drawn from these."""
    n = len(values)
    return 0.0 - sum(count / n * math.log2(count / n) for count in Counter(values).values())


def mutual_information(pairs: Seq[tuple[str, str]]) -> float:
    """Bits that one side of a pair tells of the other, as counted; of few pairs this is too much even by chance."""
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    return entropy(first) + entropy(second) - entropy([f"{a}\0{b}" for a, b in pairs])


def by_chance(pairs: Seq[tuple[str, str]], seed: int = 0) -> float:
    """The same for pairs whose second sides were shuffled: the floor that a count of bits stands on."""
    rng, second = random.Random(seed), [b for _, b in pairs]
    found = []
    for _ in range(SHUFFLES):
        rng.shuffle(second)
        found.append(mutual_information([(a, b) for (a, _), b in zip(pairs, second, strict=True)]))
    return fmean(found)
