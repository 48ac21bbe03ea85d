"""What became of a chain that was written about a graph: the six categories of Coconut (arXiv 2412.06769, section 4.1)."""

import re
from itertools import pairwise
from typing import Any

from latent_lab.problems.graphs import distances

PROCESSES = ("correct_path", "longer_path", "wrong_target", "hallucination", "correct_label", "incorrect_label")
"""``correct_path``: a shortest path from the root to the target; ``longer_path``: another path there; ``wrong_target``: a path to
some other node; ``hallucination``: no path at all, as an edge is not there or does not begin where the one before ended. The last
two: no chain was written, and the answer is right, or is not."""
LEFT_OUT = ("first", "last")
SENTENCE = re.compile(r"(?:Every )?(\w+) is a (\w+)\.")
PLACE = re.compile(r"at (\w+)")


def process(meta: dict[str, Any], nodes: list[int] | None, is_right: bool, left_out: str | None = None) -> str:
    """Name the category of one reply, given the ``nodes`` that its chain names in order (None: it cannot be read as a walk).

    ``left_out`` says which of the steps need not be written, as they were thought: the ``first`` ones or the ``last`` ones. The
    shortest way through the graph stands for them; where there is none, nothing completes the chain and it is a hallucination.
    """
    if nodes is not None and not nodes:
        return "correct_label" if is_right else "incorrect_label"
    edges, target = meta["edges"], meta["target"]
    if nodes is None or not {*pairwise(nodes)} <= {(a, b) for a, b in edges}:
        return "hallucination"
    from_root = distances(edges, meta["root"])
    if nodes[0] not in from_root or (left_out != "first" and nodes[0] != meta["root"]):
        return "hallucination"
    onward = distances(edges, nodes[-1])
    if target not in onward or (left_out != "last" and nodes[-1] != target):
        return "wrong_target"
    length = from_root[nodes[0]] + len(nodes) - 1 + onward[target]
    return "correct_path" if length == from_root[target] else "longer_path"


def nodes_of(meta: dict[str, Any], form: str, chain: str, left_out: str | None = None) -> list[int] | None:
    """Read the nodes that a chain written in one of ProsQA's forms names, in order; None where it is no walk.

    Steps in symbols do not name the root: they begin there unless the ``first`` ones are left out.
    """
    number = {symbol: node for node, symbol in enumerate(meta["idx_to_symbol"])}
    if form == "symbolic":
        words = chain.split()
        nodes = [int(word) if word.isdecimal() else -1 for word in words]
        root = [] if left_out == "first" or not nodes else [meta["root"]]
        return None if -1 in nodes else root + nodes
    lines = [line.strip() for line in chain.splitlines() if line.strip()]
    if form == "terse":
        places = [PLACE.fullmatch(line) for line in lines]
        names = [place[1] if place else "" for place in places]
        return None if not set(names) <= set(number) else [number[name] for name in names]
    steps = [SENTENCE.fullmatch(line) for line in lines]
    named = [(step[1], step[2]) if step else ("", "") for step in steps]
    if not {name for pair in named for name in pair} <= set(number):
        return None
    if any(before[1] != after[0] for before, after in pairwise(named)):
        return None
    return [number[name] for name in (*[pair[0] for pair in named[:1]], *[pair[1] for pair in named])]
