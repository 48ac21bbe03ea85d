"""A vote over the chains of a problem: the answer most of them end with, and what a tie is worth."""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from latent_lab.deliberation.chains import Chain
from latent_lab.grading.answers import normalise
from latent_lab.grading.statistics import maj_at_k, mean_interval

TIES = {
    "shared": "tied answers share the point: gold among t tied ones counts 1/t, what drawing one would give on average",
    "lost": "a tie is wrong",
    "won": "a tie with gold in it is right",
    "first": "of tied answers the one that the first run among them gave",
    "half_shared": "no answers are compared: right where more than half of the chains are, and half right where half are",
    "half_right": "no answers are compared: right where at least half of the chains are",
    "most_right": "no answers are compared: right where more than half of the chains are",
}
"""Rules for a vote; the first is ours, and where no answers are told ``half_shared``. None of them lets chance decide.

Rules that compare no answers make too little of a vote: wrong answers differ, so fewer than half may win.
"""


def votes(chains: Sequence[Chain], has_golds: bool, seed: int) -> list[dict[str, Any]]:
    """The vote at every iteration: accuracy by our rule with its interval over problems, beside every other rule.

    ``over_one_chain`` is how much more is right than in one chain on average. ``ties`` counts the problems without one winner,
    ``silent`` those where no chain gives an answer.
    """
    by_problem: dict[str, list[Chain]] = {}
    for chain in chains:
        by_problem.setdefault(chain.problem, []).append(chain)
    main = "shared" if has_golds else "half_shared"
    found = []
    for k in range(len(chains[0].iterations)):
        scores = [scored(group, k, has_golds) for group in by_problem.values()]
        alone = [fmean(chain.right[k] for chain in group) for group in by_problem.values()]
        voted = [score[main] for score in scores]
        each: dict[str, Any] = {"iteration": k, "rule": main, "accuracy": mean_interval(voted, seed=seed).as_dict()}
        gains = [a - b for a, b in zip(voted, alone, strict=True)]
        each["over_one_chain"] = mean_interval(gains, seed=seed).as_dict()
        each["rules"] = {rule: fmean(score[rule] for score in scores) for rule in scores[0] if rule in TIES}
        found.append(each | {name: int(sum(s[name] for s in scores)) for name in ("ties", "silent") if name in scores[0]})
    return found


def scored(group: Sequence[Chain], k: int, has_golds: bool) -> dict[str, float]:
    """What the vote on one problem is worth under each rule, from 0 to 1."""
    right = sum(chain.right[k] for chain in group)
    half, most = float(2 * right >= len(group)), float(2 * right > len(group))
    flags = {"half_shared": (half + most) / 2, "half_right": half, "most_right": most}
    if not has_golds:
        return flags
    answers, gold = [chain.answers[k] for chain in group], normalise(group[0].gold or "")
    counts = Counter(answer for answer in answers if answer is not None)  # in the order of the runs, so the first of equals wins
    leader = counts.most_common(1)
    shared = maj_at_k(answers, gold, len(answers))
    return {
        "shared": shared,
        "lost": float(shared == 1),
        "won": float(shared > 0),
        "first": float(bool(leader) and leader[0][0] == gold),
        **flags,
        "ties": float(is_tie(counts)),
        "silent": float(not counts),
    }


def is_tie(counts: Mapping[str, int]) -> bool:
    """Whether several answers have the most votes."""
    return list(counts.values()).count(max(counts.values(), default=0)) > 1
