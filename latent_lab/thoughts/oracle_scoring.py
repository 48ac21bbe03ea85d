"""How likely a model finds each of many candidate texts, without running every one of them for every row.

Candidates share their beginnings in a trie; an edge of it, however long, is one pass. A branch ``exp(UNLIKELY)`` times less
likely than the row's likeliest at the same depth is not followed: its candidates share the bound of its first token, so their
log-probabilities are upper bounds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

Ids = tuple[int, ...]
Predict = Callable[[Sequence[int], Sequence[Ids], int], Tensor]
"""``(rows [m], continuations [m], count)`` to log-probabilities ``[m, count, vocabulary]`` of what stands after the last
``count`` tokens of each row's prompt and continuation."""

UNLIKELY = 12.0
PASS = 2**22
"""Logits computed at once, at most, and at least one row's."""
ROWS = 1024


@dataclass
class Node:
    """A branch: what is common to its candidates so far."""

    ids: Ids
    own: int
    """Tokens of ``ids`` that its parent does not have."""
    leaves: list[int]
    """Numbers of its candidates."""
    children: list["Node"] = field(default_factory=list)

    @property
    def firsts(self) -> list[int]:
        """First token of each child's edge."""
        return [child.ids[len(self.ids)] for child in self.children]


def trie(candidates: Sequence[Ids]) -> Node:
    """The trie of candidates, none of which begins another one (each ends with a token that no other holds before its end)."""
    if len(set(candidates)) != len(candidates) or not candidates:
        raise ValueError(f"{len(candidates)} candidates, {len(set(candidates))} of them different; give one or more, each once")

    def grown(ids: Ids, own: int, leaves: list[int]) -> Node:
        node = Node(ids, own, leaves)
        if len(leaves) > 1:
            groups: dict[int, list[int]] = {}
            for i in leaves:
                groups.setdefault(candidates[i][len(ids)], []).append(i)
            for members in groups.values():
                end = len(ids) + 1
                while len(members) > 1 and len({candidates[i][end] for i in members}) == 1:
                    end += 1
                end = len(candidates[members[0]]) if len(members) == 1 else end
                node.children.append(grown(candidates[members[0]][:end], end - len(ids), members))
        return node

    if len(candidates) == 1:
        return Node((), 0, [0], [Node(candidates[0], len(candidates[0]), [0])])
    return grown((), 0, list(range(len(candidates))))


def log_probabilities(num_rows: int, candidates: Sequence[Ids], predict: Predict, vocabulary: int) -> Tensor:
    """``[rows, candidates]``: log-probability of each candidate after each row's prompt, renormalised over the candidates."""
    found = torch.full((num_rows, len(candidates)), -torch.inf, dtype=torch.float64)
    frontier = [(row, trie(candidates), 0.0) for row in range(num_rows)]
    while frontier:
        frontier.sort(key=lambda entry: len(entry[1].ids))
        grown: list[tuple[int, Node, float]] = []
        start = 0
        while start < len(frontier):
            widest = max(node.own for _, node, _ in frontier[start : start + ROWS])
            part = frontier[start : start + max(min(ROWS, PASS // (vocabulary * max(widest, 1))), 1)]
            start += len(part)
            grown += follow(part, predict, found)
        best = [-torch.inf] * num_rows
        for row, _, value in grown:
            best[row] = max(best[row], value)
        best = [max(known, float(value)) for known, value in zip(best, found.max(1).values, strict=True)]
        frontier = []
        for row, node, value in grown:
            if value < best[row] - UNLIKELY:
                found[row, node.leaves] = value - torch.tensor(float(len(node.leaves))).log().double()
            else:
                frontier.append((row, node, value))
    return found.log_softmax(dim=1)


def follow(part: Sequence[tuple[int, Node, float]], predict: Predict, found: Tensor) -> list[tuple[int, Node, float]]:
    """Run one pass over branches: finished candidates go into ``found``, the children of the others are returned."""
    count = max(1, *(node.own for _, node, _ in part))
    # The last token of a finished candidate predicts nothing more, but leaving it in keeps all rows alike.
    logs = predict([row for row, _, _ in part], [node.ids for _, node, _ in part], count).double().cpu()
    grown = []
    for i, (row, node, value) in enumerate(part):
        if node.own > 1:
            rest = torch.tensor(node.ids[len(node.ids) - node.own + 1 :])
            steps = torch.arange(count - node.own, count - 1)
            value += float(logs[i, steps, rest].sum())
        if not node.children:
            found[row, node.leaves] = value
        else:
            for child, first in zip(node.children, logs[i, -1, node.firsts].tolist(), strict=True):
                if len(child.leaves) == 1 and child.own == 1:
                    found[row, child.leaves] = value + first
                else:
                    grown.append((row, child, value + first))
    return grown
