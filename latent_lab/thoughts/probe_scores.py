"""Scores of many readings of the same problems: the same statistics as ``thoughts.scores``, resampled once for all of them."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from latent_lab.thoughts.scores import resamples

LEVEL = 0.95


class Resampler:
    """The bootstrap resamples of :mod:`latent_lab.thoughts.scores`, for many scores at once and the differences between them."""

    def __init__(self, num_problems: int, seed: int = 0) -> None:
        self.num_problems = num_problems
        self.counts = torch.from_numpy(resamples(num_problems, seed))

    def sums(self, values: Tensor) -> Tensor:
        """``[..., 1 + resamples]`` of values ``[..., problems]``: the sum of all, and their sums in every resample."""
        flat = values.reshape(-1, self.num_problems).double()
        drawn = (flat.float() @ self.counts.T).double()
        return torch.cat([flat.sum(1, keepdim=True), drawn], 1).view(*values.shape[:-1], -1)

    def means(self, sums: Tensor, counts: Tensor) -> Tensor:
        """``[..., 1 + resamples]``: ratios of sums to numbers of items ``[..., problems]``; NaN where there is no item."""
        return self.sums(sums) / self.sums(counts)


def interval(drawn: Tensor) -> dict[str, float | None]:
    """``{value, low, high}`` of a statistic ``[1 + resamples]``, its estimate first; None where it is undefined."""
    value = float(drawn[0])
    rest = drawn[1:][drawn[1:].isfinite()]
    if not math.isfinite(value):
        return {"value": None, "low": None, "high": None}
    if not len(rest):
        return {"value": value, "low": value, "high": value}
    tail = (1 - LEVEL) / 2
    low, high = rest.quantile(torch.tensor([tail, 1 - tail], dtype=rest.dtype)).tolist()
    return {"value": value, "low": low, "high": high}


def rate(drawn: Tensor, counts: Tensor) -> dict[str, Any]:
    """A score as ``thoughts.scores.score`` gives it: ``{value, n, low, high, clusters}``; ``counts [problems]`` are its items."""
    whole = interval(drawn)
    return {
        "value": whole["value"],
        "n": int(counts.sum()),
        "low": whole["low"],
        "high": whole["high"],
        "clusters": int((counts > 0).sum()),
    }


def gain(drawn: Tensor, floors: Tensor) -> Tensor:
    """``(score - floor) / (1 - floor)`` with the largest of the floors ``[floors, 1 + resamples]``, in every resample."""
    floor = floors.max(0).values
    return torch.where(floor < 1, (drawn - floor) / (1 - floor), math.nan)


def grid(values: Mapping[tuple[int, int], dict[str, Any]], shape: tuple[int, int], key: str) -> list[list[Any]]:
    """``[rows][columns]`` of one entry of scores that are kept by row and column; None where there is no score."""
    return [[values[i, j][key] if (i, j) in values else None for j in range(shape[1])] for i in range(shape[0])]
