"""Weighted votes: each chain's vote counts as much as the chain looks good for, judged without the gold answer."""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import combinations
from typing import TYPE_CHECKING, Any

from latent_lab.grading.answers import normalise

if TYPE_CHECKING:
    import numpy as np

Row = Mapping[str, Any]
WEIGHTS = {
    "agreement": "the share of the chain's attempts so far that gave its answer",
    "brevity": "the inverse of the tokens written for the chain until its answer",
}
"""What a vote can weigh; with equal weights it is the plain vote."""
NEED_GOLD = ("accuracy", "correct", "gold", "oracle", "reward", "right")
"""How names begin that would weigh a chain by whether it is right."""
MOST_DRAWS = 1_000
"""Draws of chains that a vote is averaged over: all there are up to so many, else so many at random, always the same ones."""
NEAR = 1e-9
"""Sums of weights that differ by no more than this share are tied: a sum of floats depends on its order."""


def check_weights(names: Sequence[str]) -> None:
    """ValueError for a weight there is not, above all for one that would know the gold answer."""
    allowed = ", ".join(WEIGHTS)
    for name in names:
        if name not in WEIGHTS:
            why = "it knows the gold answer, which no vote does; " if name.startswith(NEED_GOLD) else ""
            raise ValueError(f"weights={name}: {why}allowed are {allowed}")
    if len(set(names)) < len(names):
        raise ValueError(f"weights={list(names)}: allowed are {allowed}, each once")


def weight(name: str, chain: Sequence[Row], k: int, tokens: int) -> float:
    """What a chain's vote weighs at iteration k, for which ``tokens`` were written; what was only carried on is no attempt."""
    if name == "brevity":
        return 1 / max(tokens, 1)
    answers = [written(row) for row in sorted(chain, key=lambda row: row["iteration"]) if row["iteration"] <= k]
    made = [written(row) for row in chain if row["iteration"] <= k and not row["is_carried"]]
    return made.count(answers[-1]) / len(made)


def written(row: Row) -> str | None:
    """An answer as equal ones are written."""
    return None if row["answer"] is None else normalise(row["answer"])


def weighted_maj_at_k(answers: Sequence[str | None], weights: Sequence[float], gold: str, k: int) -> float:
    """The expected accuracy of a vote of k of the answers given, each with its weight above 0, drawn without replacement.

    None does not vote, and a draw without a vote is not right. Answers that lead with the same sum share the point, as in the
    plain vote; with equal weights the two are the same, up to the draws that are left out (:data:`MOST_DRAWS`).
    """
    import numpy as np

    names = sorted({answer for answer in answers if answer is not None})
    if gold not in names:
        return 0.0
    ballots = np.array([[heavy * (answer == name) for name in names] for answer, heavy in zip(answers, weights, strict=True)])
    sums = draws(len(answers), k) @ ballots
    leads = (sums >= sums.max(axis=1, keepdims=True) * (1 - NEAR)) & (sums > 0)
    won = leads[:, names.index(gold)] / np.maximum(leads.sum(axis=1), 1)
    return float(won.mean())


@cache
def draws(n: int, k: int) -> "np.ndarray":
    """Which k of n are drawn, ``[draws, n]`` of 0 and 1."""
    import numpy as np

    if math.comb(n, k) <= MOST_DRAWS:
        chosen = np.array(list(combinations(range(n), k)))
    else:
        chosen = np.random.default_rng((n, k)).random((MOST_DRAWS, n)).argsort(axis=1)[:, :k]
    drawn = np.zeros((len(chosen), n))
    np.put_along_axis(drawn, chosen, 1.0, axis=1)
    return drawn
