"""Scores of readers: a rate with its floor and its gain, clustered by problem."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from latent_lab.grading.statistics import RESAMPLES

TAILS = (0.025, 0.975)


@functools.lru_cache(maxsize=4)
def resamples(n: int, seed: int) -> np.ndarray:
    """``[resamples, n]``: how often each of ``n`` problems is drawn in a bootstrap resample; the same for every score."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float32)


def per_problem(hits: Sequence[Sequence[float]], problems: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """``[scores, problems]`` and ``[problems]``: sums of hits and their number by problem."""
    place = {problem: i for i, problem in enumerate(dict.fromkeys(problems))}
    index = np.array([place[p] for p in problems], dtype=int)
    sizes = np.bincount(index, minlength=len(place)).astype(float)
    return np.stack([np.bincount(index, np.asarray(h, dtype=float), minlength=len(place)) for h in hits]), sizes


def scores(hits: Sequence[Sequence[float]], problems: Sequence[str], *, seed: int = 0) -> list[dict[str, Any]]:
    """Means of the rows of ``hits [rows, items]``: ``{value, n, low, high, clusters}`` each, whole problems resampled.

    ``problems [items]`` names what each item belongs to; ``n`` counts the items, ``clusters`` the problems.
    """
    if not problems:
        return [{"value": None, "n": 0, "low": None, "high": None, "clusters": 0} for _ in hits]
    sums, sizes = per_problem(hits, problems)
    drawn = resamples(len(sizes), seed)
    low, high = np.quantile((drawn @ sums.T) / (drawn @ sizes)[:, None], TAILS, axis=0)
    values = sums.sum(1) / sizes.sum()
    return [
        {"value": float(value), "n": len(problems), "low": float(lo), "high": float(hi), "clusters": len(sizes)}
        for value, lo, hi in zip(values, low, high, strict=True)
    ]


def score(hits: Sequence[float], problems: Sequence[str], *, seed: int = 0) -> dict[str, Any]:
    """The one of :func:`scores` with a single row."""
    return scores([hits], problems, seed=seed)[0]


def gain(value: float | None, floor: float | None) -> float | None:
    """What share of the room above a floor was won: ``(value - floor) / (1 - floor)``; None where there is no room."""
    if value is None or floor is None or floor >= 1:
        return None
    return (value - floor) / (1 - floor)


def auc(values: Sequence[float], truths: Sequence[bool]) -> float | None:
    """How often a value of a true case is above one of a false case, ties counted half; None without either."""
    true, false = (np.array([v for v, is_true in zip(values, truths, strict=True) if is_true is side]) for side in (True, False))
    if not len(true) or not len(false):
        return None
    return float(((true[:, None] > false).mean() + (true[:, None] >= false).mean()) / 2)


def with_floor(
    hits: Sequence[float], floors: Mapping[str, Sequence[float]], problems: Sequence[str], *, seed: int = 0
) -> dict[str, Any]:
    """A score beside the largest of its floors, each given as hits on the same items: adds ``floors``, ``floor`` and ``gain``.

    The interval of the gain resamples problems, score and floors together.
    """
    whole, *others = scores([hits, *floors.values()], problems, seed=seed)
    each = dict(zip(floors, others, strict=True))
    most = max((s["value"] for s in each.values() if s["value"] is not None), default=0.0)
    found = {**whole, "floors": each, "floor": most, "gain": {"value": gain(whole["value"], most), "low": None, "high": None}}
    if problems:
        sums, sizes = per_problem([hits, *floors.values()], problems)
        drawn = resamples(len(sizes), seed)
        means = (drawn @ sums.T) / (drawn @ sizes)[:, None]
        largest = means[:, 1:].max(1) if floors else np.zeros(len(means))
        won = [(value - floor) / (1 - floor) for value, floor in zip(means[:, 0], largest, strict=True) if floor < 1]
        if won and found["gain"]["value"] is not None:
            low, high = np.quantile(won, TAILS)
            found["gain"] |= {"low": float(low), "high": float(high)}
    return found
