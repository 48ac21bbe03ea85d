"""What becomes of answers from one iteration to the next: right or wrong, kept or changed, and the class of a whole chain."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from latent_lab.deliberation.chains import Chain
from latent_lab.grading.statistics import Interval, bootstrap, cluster_bootstrap

if TYPE_CHECKING:
    import numpy as np

CLASSES = {
    "always_right": "right at every iteration",
    "improved_right": "wrong at first, right at the last",
    "regressed_right": "right at first, wrong in between, right again at the last",
    "improved_wrong": "wrong at first, right in between, wrong again at the last",
    "regressed_wrong": "right at first, wrong at the last",
    "always_wrong": "wrong at every iteration",
}
"""The six outcomes of a chain; each chain has exactly one."""
MOVES = {(True, True): "kept_right", (True, False): "broken", (False, True): "fixed", (False, False): "kept_wrong"}
"""What happens to an answer between two iterations."""


def outcome(right: Sequence[bool]) -> str:
    """The class of a chain, one of :data:`CLASSES`: whether it was ever right or wrong, how it began, and how it ended."""
    if len(set(right)) == 1:
        return "always_right" if right[0] else "always_wrong"
    return ("regressed" if right[0] else "improved") + ("_right" if right[-1] else "_wrong")


def rate(chains: Sequence[Chain], values: Iterable[float], seed: int) -> dict[str, Any]:
    """The mean of one value a chain; the interval resamples problems, each with all its chains. ``n`` counts problems."""
    return cluster_bootstrap([float(value) for value in values], [chain.problem for chain in chains], seed=seed).as_dict()


def classes(chains: Sequence[Chain], seed: int) -> dict[str, dict[str, Any]]:
    """How many chains have each outcome, and their share."""
    found = [outcome(chain.right) for chain in chains]
    return {name: {"count": found.count(name), **rate(chains, [each == name for each in found], seed)} for name in CLASSES}


def moves(chains: Sequence[Chain], before: int, after: int) -> dict[str, int]:
    """How many chains keep, fix or break their answer between two iterations."""
    counts = Counter(MOVES[chain.right[before], chain.right[after]] for chain in chains)
    return {name: counts[name] for name in MOVES.values()}


def transitions(chains: Sequence[Chain], has_answers: bool, seed: int) -> list[dict[str, Any]]:
    """Every step from an iteration to the next: moves and, where answers are told, what changed and what persisted.

    ``persistence`` is the share of answers that are given again, ``persistence_right`` and ``persistence_wrong`` those of right
    and of wrong answers. ``changed`` counts every difference, also to and from no answer; ``disappeared`` answers were followed
    by none.
    """
    found = []
    for before, after in pairwise(range(len(chains[0].iterations))):
        step: dict[str, Any] = {"from": before, "to": after, **moves(chains, before, after)}
        if has_answers:
            pairs = [(chain.answers[before], chain.answers[after]) for chain in chains]
            step["changed"] = sum(first != then for first, then in pairs)
            step["disappeared"] = sum(first is not None and then is None for first, then in pairs)
            step["persistence"] = persistence(chains, before, after, seed)
            for name, is_right in (("right", True), ("wrong", False)):
                part = [chain for chain in chains if chain.right[before] is is_right]
                step[f"persistence_{name}"] = persistence(part, before, after, seed)
        found.append(step)
    return found


def persistence(chains: Sequence[Chain], before: int, after: int, seed: int) -> dict[str, Any]:
    """Of the answers given at one iteration, the share given again at another."""
    given = [chain for chain in chains if chain.answers[before] is not None]
    return rate(given, [chain.answers[before] == chain.answers[after] for chain in given], seed)


def lengths(chains: Sequence[Chain], k: int, seed: int) -> dict[str, Any]:
    """What an iteration's texts measure, where the form tells it: share cut off, tokens, and compression.

    ``compression`` is tokens of all summaries by tokens of the reasoning they summarise, resampled by problem.
    """
    found: dict[str, Any] = {}
    told = [chain for chain in chains if chain.iterations[k].is_cut is not None]
    if told:
        found["truncated"] = rate(told, [bool(chain.iterations[k].is_cut) for chain in told], seed)
    for name in ("reasoning_tokens", "summary_tokens"):
        counted = [chain for chain in chains if getattr(chain.iterations[k], name) is not None]
        if counted:
            found[name] = rate(counted, [getattr(chain.iterations[k], name) for chain in counted], seed)
    both = [c for c in chains if c.iterations[k].reasoning_tokens and c.iterations[k].summary_tokens is not None]
    if both:
        pairs = [(c.problem, c.iterations[k].summary_tokens or 0, c.iterations[k].reasoning_tokens or 0) for c in both]
        found["compression"] = share_of_sums(pairs, seed).as_dict()
    return found


def share_of_sums(parts: Sequence[tuple[str, int, int]], seed: int) -> Interval:
    """The sum of all parts by the sum of all wholes, from (problem, part, whole); the interval resamples problems."""
    import numpy as np

    by_problem: dict[str, list[int]] = {}
    for problem, part, whole in parts:
        sums = by_problem.setdefault(problem, [0, 0])
        sums[0] += part
        sums[1] += whole
    pairs = np.asarray(list(by_problem.values()), dtype=np.float64)

    def share(index: "np.ndarray") -> float | None:
        part, whole = pairs[index].sum(axis=0)
        return part / whole if whole else None

    return bootstrap(len(pairs), share, seed=seed)
