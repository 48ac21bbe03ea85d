"""Prompts that begin alike, such as those of one problem: where to cut them, so that a beginning is read once for all."""

from collections.abc import Sequence
from itertools import groupby

Ids = Sequence[int]
Group = tuple[int, list[int]]
"""How many tokens some prompts have in common, and which prompts those are."""
WORTH = 0.9
"""A further pass over a batch is worth it if what is read, padding included, is at most so much of what it was."""


def beginnings(prompts: Sequence[Ids]) -> list[Group]:
    """Groups of different prompts, each with what is read once for it; a single group with nothing in common: not worth it.

    Every prompt is cut once and keeps at least one token of its own.
    """
    _, groups = cheapest(prompts, sorted(range(len(prompts)), key=lambda i: list(prompts[i])))
    shared = max(count for count, _ in groups)
    # A prompt that shares nothing is cut where others are, so that no rest is longer for its sake.
    groups = [(n if len(group) > 1 else min(shared, len(prompts[group[0]]) - 1), sorted(group)) for n, group in groups]
    rest = max(len(prompts[i]) - count for count, group in groups for i in group)
    area = len(groups) * max(count for count, _ in groups) + len(prompts) * rest
    return (
        sorted(groups, key=lambda each: each[1])
        if area <= WORTH * len(prompts) * max(map(len, prompts))
        else [(0, list(range(len(prompts))))]
    )


def cheapest(prompts: Sequence[Ids], order: Sequence[int]) -> tuple[int, list[Group]]:
    """How many tokens are read of the prompts ``order``, which are sorted, and the groups of that.

    The lesser of two: all cut where they first differ, or those that differ there each by themselves.
    """
    first, last = prompts[order[0]], prompts[order[-1]]
    if len(order) == 1:
        return len(first), [(0, list(order))]
    same = next((i for i, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
    shared = min(same, len(first) - 1)  # the shortest of those that hold each other comes first
    together = shared + sum(len(prompts[i]) - shared for i in order)
    parts = [list(part) for _, part in groupby(order, key=lambda i: list(prompts[i][: same + 1]))]
    if same == len(first):
        parts = [[order[0]], list(order[1:])]
    found = [cheapest(prompts, part) for part in parts]
    apart = sum(count for count, _ in found)
    if apart < together:
        return apart, [group for _, groups in found for group in groups]
    return together, [(shared, list(order))]
