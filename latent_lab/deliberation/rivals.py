"""Rivals at equal tokens: thinking again against simply voting, on one axis of tokens written for a problem.

A point is a recipe and how far it was followed: a chain up to iteration k, a vote of k first attempts or of k finished chains.
It has a score for each problem, from 0 to 1, and the tokens it writes for one on average. Tokens are those a recipe would have
written alone; what recipes share was written, and paid, once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

from latent_lab.deliberation.compared import corrected, verdict
from latent_lab.deliberation.samples import handed_on_tokens
from latent_lab.deliberation.settings import SAMPLES
from latent_lab.deliberation.weights import weight, weighted_maj_at_k
from latent_lab.grading.statistics import (
    RIGHT,
    ballots,
    g_pass_at_k,
    maj_at_k,
    mean_interval,
    paired_difference,
    pass_at_k,
    pass_power_k,
    sign_flip,
)

Row = Mapping[str, Any]
VOTE, PASS = "vote of first attempts", "any of first attempts right (knows gold)"
HALF = "half of first attempts right (knows gold)"
ALL = "all of first attempts right (knows gold)"
"""pass@k, G-Pass@k at a half, and pass^k: from what can be hoped for to what can be relied on."""
THEN_VOTE, BY = ", then vote", " by "
"""How a method's chains that vote are called, and votes that are weighted."""
UNIT = 120
"""Scores are rounded to so many parts of a problem for the sign-flip test, which takes whole numbers."""
KNOWS_GOLD = frozenset({PASS, HALF, ALL})


@dataclass(frozen=True)
class Point:
    """One recipe, followed so far."""

    size: int
    """Iterations, or votes."""
    tokens: float
    """Written for a problem, on average."""
    scores: tuple[float, ...]
    """Of each problem, in the order of all points."""


def curves(rows: Sequence[Row], weights: Sequence[str] = ()) -> dict[str, list[Point]]:
    """The points of every recipe, from the rows of all samples, carried ones included; ``weights`` are for votes besides."""
    groups: dict[str, dict[str, dict[int, list[Row]]]] = {}
    for row in rows:
        groups.setdefault(row["method"], {}).setdefault(str(row["id"]), {}).setdefault(row["chain"], []).append(row)
    firsts = groups.pop(SAMPLES, {})
    found: dict[str, list[Point]] = {}
    for method, problems in groups.items():
        last = max(row["iteration"] for chains in problems.values() for rows_of in chains.values() for row in rows_of)
        found[method] = [one_chain(problems, k) for k in range(last + 1)]
        if (most := min(map(len, problems.values()))) > 1:
            found[f"{method}{THEN_VOTE}"] = [voted(problems, last, k) for k in range(2, most + 1)]
            for by in weights:
                found[f"{method}{THEN_VOTE}{BY}{by}"] = [voted(problems, last, k, by=by) for k in range(2, most + 1)]
    if firsts:
        most = min(map(len, firsts.values()))
        found[VOTE] = [voted(firsts, 0, k) for k in range(1, most + 1)]
        for by in weights:
            if by != "agreement":  # a first attempt agrees with itself: that is the plain vote
                found[f"{VOTE}{BY}{by}"] = [voted(firsts, 0, k, by=by) for k in range(1, most + 1)]
        found[PASS] = [voted(firsts, 0, k, chance=pass_at_k) for k in range(1, most + 1)]
        found[HALF] = [voted(firsts, 0, k, chance=g_pass_at_k) for k in range(1, most + 1)]
        found[ALL] = [voted(firsts, 0, k, chance=pass_power_k) for k in range(1, most + 1)]
    return found


Problems = Mapping[str, Mapping[int, Sequence[Row]]]


def one_chain(problems: Problems, k: int) -> Point:
    """A chain up to iteration k; a problem's score is the share of its chains that are right there."""
    at = [[at_iteration(chain, k) for chain in chains.values()] for _, chains in sorted(problems.items())]
    tokens = fmean(tokens_at(row) for rows in at for row in rows)
    return Point(k, tokens, tuple(fmean(row["correct"] for row in rows) for rows in at))


def voted(
    problems: Problems, k: int, votes: int, *, chance: Callable[[int, int, int], float] | None = None, by: str | None = None
) -> Point:
    """So many chains at iteration k, all draws of them weighed alike: the chance that a vote is right, a tie shared.

    With ``chance`` that of so many chains, so many right and so many votes, in place of a vote; with ``by`` each vote has that
    weight. Answers vote as equal ones are written; which of them are right, the rows say.
    """
    scores, tokens = [], []
    for _, chains in sorted(problems.items()):
        at = [at_iteration(chain, k) for chain in chains.values()]
        right = sum(row["correct"] for row in at)
        if by:
            heavy = [weight(by, chain, k, tokens_at(row)) for chain, row in zip(chains.values(), at, strict=True)]
            scores.append(weighted_maj_at_k(ballots(at), heavy, RIGHT, votes))
        else:
            scores.append(chance(len(at), right, votes) if chance else maj_at_k(ballots(at), RIGHT, votes, key=str))
        tokens.append(votes * fmean(tokens_at(row) for row in at))
    return Point(votes, fmean(tokens), tuple(scores))


def at_iteration(chain: Sequence[Row], k: int) -> Row:
    """The row of an iteration."""
    return next(row for row in chain if row["iteration"] == k)


def tokens_at(row: Row) -> int:
    """Tokens written for a chain until its answer of this iteration; what it then hands on is no part of that."""
    return int(row["cum_tokens"]) - (0 if row["is_carried"] else handed_on_tokens(row))


def drawn(points: Mapping[str, Sequence[Point]], seed: int) -> dict[str, list[dict[str, Any]]]:
    """Every curve with intervals, as ``result.json`` holds it."""
    return {
        name: [
            {"size": each.size, "tokens": each.tokens, "accuracy": mean_interval(each.scores, seed=seed).as_dict()}
            for each in line
        ]
        for name, line in points.items()
    }


def at_equal_tokens(points: Mapping[str, Sequence[Point]], budget: float, seed: int) -> dict[str, Any]:
    """Every recipe as far as it goes within a budget of tokens, and every pair tested, corrected by Holm.

    A recipe whose first point costs more is left out, and so is what knows the gold answer.
    """
    within = {
        name: [each for each in line if each.tokens <= budget * (1 + 1e-9)]
        for name, line in points.items()
        if name not in KNOWS_GOLD
    }
    best = {name: line[-1] for name, line in within.items() if line}
    order = sorted(best, key=lambda name: (-fmean(best[name].scores), best[name].tokens, name))
    pairs = [{"better": one, "worse": other, **compared(best[other], best[one], seed)} for one, other in combinations(order, 2)]
    tested = list(corrected({str(i): pair for i, pair in enumerate(pairs)}).values())
    return {
        "tokens": budget,
        "recipes": {
            name: {
                "size": best[name].size,
                "tokens": best[name].tokens,
                "accuracy": mean_interval(best[name].scores, seed=seed).as_dict(),
            }
            for name in order
        },
        "pairs": tested,
        "verdict": verdict(order, tested),
    }


def compared(first: Point, second: Point, seed: int) -> dict[str, Any]:
    """Second minus first over the problems, with a sign-flip test; a score is no flag, so there is no 2x2 table."""
    differences = [round(UNIT * (there - here)) for here, there in zip(first.scores, second.scores, strict=True)]
    return {
        "n": len(first.scores),
        "difference": paired_difference(first.scores, second.scores, seed=seed).as_dict(),
        "sign_flip_p": sign_flip(differences),
        "mcnemar_p": None,
    }
