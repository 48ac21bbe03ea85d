"""How much a plan says, in bits, and which plans there are."""

import math
import random
from collections import Counter
from collections.abc import Sequence as Seq
from itertools import pairwise
from statistics import fmean
from typing import Any

SHUFFLES = 20
MOST = 10
"""Plans that are listed, and pairs."""


def entropy(values: Seq[str]) -> float:
    """Bits in a value drawn from these."""
    n = len(values)
    return 0.0 - sum(count / n * math.log2(count / n) for count in Counter(values).values())


def mutual_information(pairs: Seq[tuple[str, str]]) -> float:
    """Bits that one side of a pair tells of the other, as counted; of few pairs this is too much even by chance."""
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    return entropy(first) + entropy(second) - entropy([f"{a}\0{b}" for a, b in pairs])


def normalised(pairs: Seq[tuple[str, str]]) -> float | None:
    """The same as a share of what both sides hold on average, so that numbers of kinds compare; None where they hold nothing."""
    held = entropy([a for a, _ in pairs]) + entropy([b for _, b in pairs])
    return 2 * mutual_information(pairs) / held if held else None


def by_chance(pairs: Seq[tuple[str, str]], seed: int = 0) -> float:
    """The same for pairs whose second sides were shuffled: the floor that a count of bits stands on."""
    rng, second = random.Random(seed), [b for _, b in pairs]
    found = []
    for _ in range(SHUFFLES):
        rng.shuffle(second)
        found.append(mutual_information([(a, b) for (a, _), b in zip(pairs, second, strict=True)]))
    return fmean(found)


def frequent(rows: Seq[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The most frequent plans, and pairs of kinds that follow one another: how often gold chains have them, and replies."""
    whole = {name: [tuple(row[name]) for row in rows if row[name]] for name in ("plan_gold", "plan")}
    pairs = {name: [pair for plan in plans for pair in pairwise(plan)] for name, plans in whole.items()}
    return {"plans": most_frequent(whole["plan_gold"], whole["plan"]), "pairs": most_frequent(pairs["plan_gold"], pairs["plan"])}


def most_frequent(gold: Seq[tuple[str, ...]], written: Seq[tuple[str, ...]]) -> list[dict[str, Any]]:
    """By how often both have them together; of equals the first by the alphabet."""
    in_gold, in_written = Counter(gold), Counter(written)
    found = sorted((in_gold + in_written).items(), key=lambda item: (-item[1], item[0]))[:MOST]
    return [{"kinds": list(kinds), "gold": in_gold[kinds], "written": in_written[kinds]} for kinds, _ in found]
