"""Prompts that begin alike, such as those of one problem: where to cut them, so that a beginning is read once for all."""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

Ids = Sequence[int]
Group = tuple[int, list[int]]
"""How many tokens some prompts have in common, and which prompts those are."""
WORTH = 0.9
"""A further pass over a batch is worth it if what is read, with and without padding, is at most so much of what it was."""


def beginnings(prompts: Sequence[Ids]) -> list[Group]:
    """Groups of different prompts, each with what is read once for it; a single group with nothing in common: not worth it.

    Every prompt is cut once and keeps at least one token of its own.
    """
    _, groups = cheapest(prompts, sorted(range(len(prompts)), key=lambda i: list(prompts[i])))
    rests = {len(prompts[i]) - count for count, group in groups if len(group) > 1 for i in group}
    ways = [within(prompts, groups, rest) for rest in sorted(rests)]
    best = min(ways, key=lambda way: area(prompts, way), default=uncut(len(prompts)))
    tokens, whole = sum(map(len, prompts)), len(prompts) * max(map(len, prompts))
    is_worth = tokens - sum(spared(best)) <= WORTH * tokens and area(prompts, best) <= WORTH * whole
    return sorted(best, key=lambda each: each[1]) if is_worth else uncut(len(prompts))


def within(prompts: Sequence[Ids], groups: Sequence[Group], rest: int) -> list[Group]:
    """The same groups with no rest longer than that: prompts of a longer one, and those that share nothing, are cut alone."""
    made: list[Group] = []
    for count, group in groups:
        kept = [i for i in group if len(group) > 1 and len(prompts[i]) - count <= rest]
        made += [(count, sorted(kept))] if kept else []
        made += [(max(len(prompts[i]) - rest, 0), [i]) for i in group if i not in kept]
    return made


def area(prompts: Sequence[Ids], groups: Sequence[Group]) -> int:
    """Tokens that a batch of beginnings and one of rests take, padding included."""
    rest = max(len(prompts[i]) - count for count, group in groups for i in group)
    return len(groups) * max(count for count, _ in groups) + len(prompts) * rest


def uncut(count: int) -> list[Group]:
    """One group of so many prompts with nothing in common, which are read whole."""
    return [(0, list(range(count)))]


def spared(groups: Sequence[Group]) -> list[int]:
    """For each prompt the tokens that the first of its group reads for it."""
    counts = {i: count for count, group in groups for i in group[1:]}
    return [counts.get(i, 0) for i in range(sum(len(group) for _, group in groups))]


def pieces(
    prompts: Sequence[Ids], groups: Sequence[Group], rows: Sequence[int], pad: int, device: Any
) -> list[tuple["Tensor", "Tensor", "Tensor"]]:
    """Prompts as :func:`latent_lab.decoding.continued` reads them: beginnings, if there are any, and rests. ``rows`` as there."""
    whose = {i: number for number, (_, group) in enumerate(groups) for i in group}
    cuts = [groups[whose[i]][0] for i in range(len(prompts))]
    begin = [prompts[group[0]][:count] for count, group in groups]
    rests = [prompt[count:] for prompt, count in zip(prompts, cuts, strict=True)]
    behind = [whose[i] for i in range(len(prompts))]
    return [*([padded(begin, behind, pad, device)] if any(cuts) else []), padded(rests, rows, pad, device)]


def padded(texts: Sequence[Ids], rows: Sequence[int], pad: int, device: Any) -> tuple["Tensor", "Tensor", "Tensor"]:
    """Texts padded on the left, their mask, and the rows that go on."""
    import torch

    longest = max(map(len, texts))
    ids = [[pad] * (longest - len(row)) + list(row) for row in texts]
    real = [[0] * (longest - len(row)) + [1] * len(row) for row in texts]
    return torch.tensor(ids, device=device), torch.tensor(real, device=device), torch.tensor(rows, device=device)


def cheapest(prompts: Sequence[Ids], order: Sequence[int]) -> tuple[int, list[Group]]:
    """How many tokens are read of the prompts ``order``, which are sorted, and the groups of that.

    The lesser of two: all cut where they first differ, or those that differ there each by themselves.
    """
    first, last = prompts[order[0]], prompts[order[-1]]
    if len(order) == 1:
        return len(first), [(0, list(order))]
    same = next((i for i, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
    shared = max(min(same, len(first) - 1), 0)  # the shortest of those that hold each other comes first
    together = shared + sum(len(prompts[i]) - shared for i in order)
    parts = [list(part) for _, part in groupby(order, key=lambda i: list(prompts[i][: same + 1]))]
    if same == len(first):
        parts = [[order[0]], list(order[1:])]
    found = [cheapest(prompts, part) for part in parts]
    apart = sum(count for count, _ in found)
    if apart < together:
        return apart, [group for _, groups in found for group in groups]
    return together, [(shared, list(order))]
