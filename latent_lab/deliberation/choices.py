"""Which answer of a chain to take: the last, the first that repeats itself, or, knowing the gold answer, a right one."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from latent_lab.deliberation.chains import Chain
from latent_lab.deliberation.outcomes import rate

CHOICES = {
    "last": "the last iteration",
    "last_given": "the last iteration in which an answer was found",
    "two_alike": "stop as soon as an answer is given twice running",
    "three_alike": "stop as soon as an answer is given three times running",
    "any_right": "a right iteration if there is one: this knows the gold answer, and bounds every other choice",
}
"""Rules to choose an iteration; where none of its kind comes, the last. All but ``any_right`` can be had without labels."""
ALIKE = {"two_alike": 2, "three_alike": 3}
"""How many equal answers running end a chain; iterations after that need not be had."""


def choices(chains: Sequence[Chain], has_answers: bool, seed: int) -> dict[str, dict[str, Any]]:
    """The accuracy of every rule, and ``iterations``: how many a chain needs on average until its answer is chosen."""
    found = {}
    for rule in CHOICES:
        if has_answers or rule in ("last", "any_right"):
            taken = [chosen(chain, rule) for chain in chains]
            right = [chain.right[k] for chain, k in zip(chains, taken, strict=True)]
            spent = fmean(k + 1 for k in taken) if rule in ALIKE else len(chains[0].right)
            found[rule] = {**rate(chains, right, seed), "iterations": spent}
    return found


def chosen(chain: Chain, rule: str) -> int:
    """The iteration that a rule takes of a chain."""
    answers, last = chain.answers, len(chain.right) - 1
    if rule == "any_right":
        return next((k for k, is_right in enumerate(chain.right) if is_right), last)
    if rule == "last_given":
        return next((k for k in range(last, -1, -1) if answers[k] is not None), last)
    if rule == "last":
        return last
    for k in range(ALIKE[rule] - 1, last + 1):
        if answers[k] is not None and len(set(answers[k + 1 - ALIKE[rule] : k + 1])) == 1:
            return k
    return last
