"""K-means in NumPy, plain or with clusters of equal size, and the scaling of points before it. Deterministic."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float32]
STARTS, ROUNDS, PRICES = 10, 300, 300
"""Attempts of which the tightest is kept, most rounds of one attempt, rounds of bidding for equal sizes."""
MOST = 2000
"""Points that clusters are judged by: every point is held against every other."""


def distances(points: Points, centroids: Points) -> Points:
    """``[n, width]`` and ``[clusters, width]`` to squared distances ``[n, clusters]``."""
    cross = points @ centroids.T
    return np.maximum((points**2).sum(1)[:, None] - 2 * cross + (centroids**2).sum(1)[None], 0).astype(np.float32)


def assigned(points: Points, centroids: Points, prices: Points) -> NDArray[np.int64]:
    """``[n]``: the cluster each point belongs to, nearest first once its price is added; the same rule for points never seen."""
    return np.argmin(distances(points, centroids) + prices, axis=1)


def cluster(points: Points, clusters: int, seed: int, *, balanced: bool = False) -> tuple[Points, Points]:
    """Centroids ``[clusters, width]`` and prices ``[clusters]`` (0 unless ``balanced``) of points ``[n, width]``.

    Lloyd's algorithm from k-means++ starts; of the attempts the one with the least within-cluster distance. With ``balanced`` a
    cluster that draws more than its share of points becomes dearer until all are about equally large.
    """
    rng = np.random.default_rng(seed)
    attempts = []
    for _ in range(STARTS):
        centroids, prices = started(points, clusters, rng), np.zeros(clusters, dtype=np.float32)
        before: Any = None
        for _ in range(ROUNDS):
            away = distances(points, centroids)
            prices = priced(away) if balanced else prices
            chosen = np.argmin(away + prices, axis=1)
            if before is not None and (chosen == before).all():
                break
            before = chosen
            for k in range(clusters):
                if (mine := chosen == k).any():
                    centroids[k] = points[mine].mean(axis=0)
        spread = float(distances(points, centroids)[np.arange(len(points)), chosen].sum())
        attempts.append((spread, centroids, prices))
        if balanced:  # each round is dear, and prices leave little for another start to find
            break
    _, centroids, prices = min(attempts, key=lambda attempt: attempt[0])
    return centroids, prices


def started(points: Points, clusters: int, rng: np.random.Generator) -> Points:
    """First centroids by k-means++: each next one a point drawn in proportion to its squared distance from those there are."""
    chosen = [int(rng.integers(len(points)))]
    for _ in range(clusters - 1):
        away = distances(points, points[chosen]).min(axis=1).astype(np.float64)
        total = away.sum()
        chosen.append(int(rng.choice(len(points), p=away / total if total else None)))
    return points[chosen].copy()


def priced(away: Points) -> Points:
    """Prices under which clusters get equally many points, by bidding: one too full becomes dearer, one too empty cheaper."""
    n, clusters = away.shape
    prices, best = np.zeros(clusters), (n + 1.0, np.zeros(clusters))
    scale = float(away.std()) or 1.0
    for number in range(PRICES):
        excess = np.bincount(np.argmin(away + prices, axis=1), minlength=clusters) - n / clusters
        if (worst := float(np.abs(excess).max())) < best[0]:
            best = (worst, prices.copy())
        prices = prices + scale / (1 + number / 10) * excess / n
    return best[1].astype(np.float32)


def silhouette(points: Points, chosen: NDArray[np.int64]) -> float:
    """How well clusters are parted, -1 to 1: the mean over points of ``(b - a) / max(a, b)``, ``a`` being the mean distance to
    the others of its own cluster and ``b`` that to the nearest other cluster; 0 for a point that is alone, or has no other.

    Of many points evenly spaced ones stand for all.
    """
    every = max(1, -(-len(points) // MOST))
    points, chosen = points[::every], chosen[::every]
    away = np.sqrt(distances(points, points))
    np.fill_diagonal(away, 0)
    kinds = np.unique(chosen)
    if len(kinds) < 2:
        return 0.0
    is_in = chosen[None] == kinds[:, None]
    sizes, own = is_in.sum(1), is_in.T
    sums = away @ is_in.T.astype(away.dtype)
    inside = sums[own] / np.maximum(sizes[own.argmax(1)] - 1, 1)
    outside = np.where(own, np.inf, sums / sizes).min(axis=1)
    longer = np.maximum(np.maximum(inside, outside), np.finfo(away.dtype).tiny)
    return float(np.where(sizes[own.argmax(1)] > 1, (outside - inside) / longer, 0).mean())


def scaling(points: Points, kind: str, components: int) -> dict[str, Any]:
    """What makes points comparable, learned from ``[n, width]``: their ``mean``, and a ``matrix`` to multiply by.

    ``none`` changes nothing, ``standard`` divides each coordinate by its standard deviation, ``pca`` turns to the directions in
    which the points vary most and keeps the first ``components``.
    """
    if kind == "none":
        return {}
    mean = points.mean(axis=0)
    if kind == "standard":
        deviation = points.std(axis=0)
        return {"mean": mean, "scale": np.where(deviation > 0, 1 / np.maximum(deviation, 1e-8), 0).astype(np.float32)}
    _, _, directions = np.linalg.svd(points - mean, full_matrices=False)
    signs = np.sign(directions[np.arange(len(directions)), np.abs(directions).argmax(axis=1)])  # else the sign is left to chance
    return {"mean": mean, "matrix": np.ascontiguousarray((directions * signs[:, None])[:components].T.astype(np.float32))}


def scaled(points: Points, by: dict[str, Any]) -> Points:
    """Points ``[n, width]`` under a :func:`scaling`."""
    if "mean" not in by:
        return points
    centred = points - by["mean"]
    return centred * by["scale"] if "scale" in by else centred @ by["matrix"]
