"""Two ways to answer the same problems, side by side: without and with the tool, one run and another."""

from collections.abc import Sequence
from typing import Any

from latent_lab.grading.statistics import mcnemar, paired_difference, wilson


def two_by_two(first: Sequence[bool], second: Sequence[bool]) -> list[int]:
    """How many problems both got right, the first alone, the second alone, and neither: TT, TF, FT, FF."""
    pairs = list(zip(first, second, strict=True))
    return [pairs.count(pair) for pair in ((True, True), (True, False), (False, True), (False, False))]


def comparison(first: Sequence[bool], second: Sequence[bool], seed: int = 0) -> dict[str, Any]:
    """The table of two ways with both rates, their paired difference (second minus first) and the exact McNemar p-value."""
    table = two_by_two(first, second)
    return {
        "n": len(first),
        "table": table,
        "first": wilson(sum(first), len(first)).as_dict(),
        "second": wilson(sum(second), len(second)).as_dict(),
        "difference": paired_difference(first, second, seed=seed).as_dict(),
        "mcnemar_p": mcnemar(table[1], table[2]),
    }
