"""Scores of readers: a rate with its floor and its gain, clustered by problem."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from latent_lab.grading.statistics import bootstrap, cluster_bootstrap


def score(hits: Sequence[float], problems: Sequence[str], *, seed: int = 0) -> dict[str, Any]:
    """Mean of ``hits`` with an interval that resamples whole problems: ``{value, n, low, high, clusters}``.

    ``n`` counts the hits, ``clusters`` the problems they belong to.
    """
    interval = cluster_bootstrap(hits, problems, seed=seed).as_dict()
    return {**interval, "n": len(hits), "clusters": interval["n"]}


def gain(value: float | None, floor: float | None) -> float | None:
    """What share of the room above a floor was won: ``(value - floor) / (1 - floor)``; None where there is no room."""
    if value is None or floor is None or floor >= 1:
        return None
    return (value - floor) / (1 - floor)


def with_floor(
    hits: Sequence[float], floors: Mapping[str, Sequence[float]], problems: Sequence[str], *, seed: int = 0
) -> dict[str, Any]:
    """A score beside the largest of its floors, each given as hits on the same items: adds ``floors``, ``floor`` and ``gain``.

    The interval of the gain resamples problems, score and floors together.
    """
    whole = score(hits, problems, seed=seed)
    order = list(dict.fromkeys(problems))
    place = {problem: i for i, problem in enumerate(order)}
    index = np.array([place[p] for p in problems])
    sizes = np.bincount(index, minlength=len(order)).astype(float)
    sums = np.stack([np.bincount(index, np.asarray(h, dtype=float), minlength=len(order)) for h in (hits, *floors.values())])

    def statistic(chosen: np.ndarray) -> float | None:
        means = sums[:, chosen].sum(1) / sizes[chosen].sum()
        return gain(float(means[0]), float(max(means[1:], default=0.0)))

    each = {name: score(values, problems, seed=seed) for name, values in floors.items()}
    most = max((s["value"] for s in each.values() if s["value"] is not None), default=0.0)
    won = bootstrap(len(order), statistic, seed=seed).as_dict()
    return {**whole, "floors": each, "floor": most, "gain": {key: won[key] for key in ("value", "low", "high")}}
