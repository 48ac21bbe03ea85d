"""How far judges agree beyond chance: Cohen's and Fleiss' kappa and Krippendorff's alpha, with bootstrap intervals over units.

All are for nominal categories, and none is defined where every rating is the same: then nothing tells judging from saying one
thing always, and the interval holds None.
"""

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from latent_lab.grading.statistics import RESAMPLES, Interval, bootstrap

if TYPE_CHECKING:
    import numpy as np


def cohen_kappa(
    first: Sequence[Hashable],
    second: Sequence[Hashable],
    confidence: float = 0.95,
    num_resamples: int = RESAMPLES,
    seed: int = 0,
    owners: Sequence[Hashable] | None = None,
) -> Interval:
    """Return Cohen's kappa (1960) of two judges: agreement beyond that of their own frequencies of each category.

    Item i of both is what they said about unit i. ``owners[i]`` names what the unit belongs to, such as its problem: then whole
    owners are resampled, and ``n`` counts them.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} ratings by the first, {len(second)} by the second: allowed is one by each of every unit")
    _refuse_missing([first, second])
    mine = _counts([[rating] for rating in first], categories := _categories([first, second]))
    theirs = _counts([[rating] for rating in second], categories)
    same = (mine * theirs).sum(1)
    if owners is not None:
        units = _counts([[owner] for owner in owners], _categories([owners])).T
        mine, theirs, same = units @ mine, units @ theirs, units @ same

    def kappa(index: "np.ndarray") -> float | None:
        n = mine[index].sum()
        return _beyond_chance(same[index].sum() / n, float(mine[index].sum(0) @ theirs[index].sum(0)) / n**2)

    return bootstrap(len(same), kappa, confidence, num_resamples, seed)


def fleiss_kappa(
    ratings: Sequence[Sequence[Hashable]], confidence: float = 0.95, num_resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return Fleiss' kappa (1971) of ``ratings[unit]``, all of them equally many; who gave which does not matter."""
    numbers = {len(unit) for unit in ratings}
    if len(numbers) > 1 or numbers & {0, 1}:
        raise ValueError(
            f"units have {', '.join(map(str, sorted(numbers)))} ratings: allowed are equally many, 2 or more; "
            "krippendorff_alpha takes what is missing as None"
        )
    _refuse_missing(ratings)
    counts = _counts(ratings, _categories(ratings))

    def kappa(index: "np.ndarray") -> float | None:
        drawn, judges = counts[index], max(numbers)
        agreed = (drawn * (drawn - 1)).sum() / (len(index) * judges * (judges - 1))
        shares = drawn.sum(0) / drawn.sum()
        return _beyond_chance(agreed, float(shares @ shares))

    return bootstrap(len(ratings), kappa, confidence, num_resamples, seed)


def krippendorff_alpha(
    ratings: Sequence[Sequence[Hashable | None]], confidence: float = 0.95, num_resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return Krippendorff's alpha for nominal data of ``ratings[unit]``, one of each judge, None where one gave none.

    Units with fewer than two ratings say nothing of agreement and are left out; ``n`` counts the others. (Krippendorff 2011,
    Computing Krippendorff's Alpha-Reliability, section C.)
    """
    rated = [[rating for rating in unit if rating is not None] for unit in ratings]
    pairable = [unit for unit in rated if len(unit) > 1]
    counts = _counts(pairable, _categories(pairable))
    # Pairs of equal ratings within a unit, each weighed so that a unit counts as often as it was rated.
    agreed = (counts * (counts - 1)).sum(1) / (counts.sum(1) - 1)

    def alpha(index: "np.ndarray") -> float | None:
        values = counts[index].sum(0)
        n = values.sum()
        return _beyond_chance(agreed[index].sum() / n, float(values @ (values - 1)) / (n * (n - 1)))

    return bootstrap(len(pairable), alpha, confidence, num_resamples, seed)


def _beyond_chance(observed: float, expected: float) -> float | None:
    """The share of the agreement that chance would leave open; None where it leaves none."""
    return None if expected > 1 - 1e-12 else float((observed - expected) / (1 - expected))


def _categories(ratings: Sequence[Sequence[Hashable]]) -> list[Hashable]:
    return list(dict.fromkeys(rating for unit in ratings for rating in unit))


def _counts(ratings: Sequence[Sequence[Hashable]], categories: list[Hashable]) -> "np.ndarray":
    """``[units, categories]``: how often each unit was given each category."""
    import numpy as np

    place = {category: i for i, category in enumerate(categories)}
    counts = np.zeros((len(ratings), len(categories)), dtype=np.int64)
    for row, unit in zip(counts, ratings, strict=True):
        for rating in unit:
            row[place[rating]] += 1
    return counts


def _refuse_missing(ratings: Sequence[Sequence[Hashable]]) -> None:
    if any(rating is None for unit in ratings for rating in unit):
        raise ValueError("a rating is None: this kappa knows no missing ratings; leave the unit out, or take krippendorff_alpha")
