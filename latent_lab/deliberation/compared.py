"""Methods against where they began and against each other: paired by problem and run, tested exactly, corrected by Holm."""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import combinations
from typing import Any

from latent_lab.deliberation.chains import Chain
from latent_lab.grading.comparison import two_by_two
from latent_lab.grading.statistics import holm, mcnemar, paired_cluster_difference, sign_flip

ALPHA = 0.05
"""A difference counts where its corrected p is at most this."""
TESTS = {
    "mcnemar": "exact McNemar test over chains, as if all of them were independent",
    "sign_flip": "exact sign-flip test over problems, whose chains count together; verdicts go by this one",
}

Scores = Sequence[tuple[Chain, bool]]
"""Chains, and whether what is compared of them is right."""


def gain(chains: Sequence[Chain], seed: int) -> dict[str, Any]:
    """The last iteration against the first of the same chains: ``fixed`` were wrong and are right, ``broken`` the other way."""
    found = compare([(chain, chain.right[0]) for chain in chains], [(chain, chain.right[-1]) for chain in chains], seed)
    return {**found, "fixed": found["table"][2], "broken": found["table"][1]}


def compare(first: Scores, second: Scores, seed: int) -> dict[str, Any]:
    """Second minus first on the problems both answered: interval over problems, 2x2 table of chains of one run, both tests.

    The table and McNemar's test take what both did to a problem in the same run; where they share no run, they are left out.
    """
    shared = {chain.problem for chain, _ in first} & {chain.problem for chain, _ in second}
    one, other = ([(chain, is_right) for chain, is_right in scores if chain.problem in shared] for scores in (first, second))
    (rights, problems), (others, theirs) = columns(one), columns(other)
    difference = paired_cluster_difference(rights, problems, others, theirs, seed=seed)
    found: dict[str, Any] = {"n": len(shared), "difference": difference.as_dict()}
    here, there = ({(c.run, c.problem): is_right for c, is_right in scores} for scores in (one, other))
    pairs = [key for key in here if key in there]
    table = two_by_two([here[key] for key in pairs], [there[key] for key in pairs])
    found |= {"table": table if pairs else None, "mcnemar_p": mcnemar(table[1], table[2]) if pairs else None}
    return {**found, "sign_flip_p": sign_flip(by_problem(one, other))}


def columns(scores: Scores) -> tuple[list[bool], list[str]]:
    """What is right, and the problem it belongs to."""
    return [is_right for _, is_right in scores], [chain.problem for chain, _ in scores]


def by_problem(first: Scores, second: Scores) -> list[int]:
    """For each problem second minus first, in a unit that makes all differences of shares whole numbers."""
    shares: list[dict[str, Fraction]] = []
    for scores in (first, second):
        given: dict[str, list[bool]] = {}
        for chain, is_right in scores:
            given.setdefault(chain.problem, []).append(is_right)
        shares.append({problem: Fraction(sum(flags), len(flags)) for problem, flags in given.items()})
    differences = [shares[1][problem] - share for problem, share in shares[0].items()]
    unit = math.lcm(*(difference.denominator for difference in differences))
    return [int(difference * unit) for difference in differences]


def corrected(found: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Comparisons with ``mcnemar_holm_p`` and ``sign_flip_holm_p``, Holm's correction over all of them."""
    adjusted = {
        test: holm({name: each[f"{test}_p"] for name, each in found.items() if each[f"{test}_p"] is not None}) for test in TESTS
    }
    return {name: {**each, **{f"{test}_holm_p": ps.get(name) for test, ps in adjusted.items()}} for name, each in found.items()}


def ranking(methods: Mapping[str, Sequence[Chain]], seed: int) -> dict[str, Any]:
    """Methods from the best last iteration down, every pair tested there, and what may be said of the order.

    Methods need not have answered the same problems. ``better`` is who has more right of all its own; ``difference`` is better
    minus worse on the problems of both.
    """
    score = {name: sum(chain.right[-1] for chain in chains) / len(chains) for name, chains in methods.items()}
    order = sorted(methods, key=lambda name: (-score[name], name))
    last = {name: [(chain, chain.right[-1]) for chain in chains] for name, chains in methods.items()}
    found: dict[str, dict[str, Any]] = {}
    for worse, better in ((worse, better) for better, worse in combinations(order, 2)):
        if {chain.problem for chain in methods[worse]} & {chain.problem for chain in methods[better]}:
            compared = compare(last[worse], last[better], seed)
            found[f"{len(found)}"] = {"better": better, "worse": worse, **compared}
    pairs = list(corrected(found).values())
    return {"order": order, "pairs": pairs, "verdict": verdict(order, pairs)}


def verdict(order: Sequence[str], pairs: Sequence[Mapping[str, Any]]) -> str:
    """What the tests say of the ranking, in a sentence."""
    if not pairs:
        return "nothing to rank: there are no two methods on the same problems"
    apart = [each for each in pairs if each["sign_flip_holm_p"] <= ALPHA]
    least = min(each["sign_flip_holm_p"] for each in pairs)
    if not apart:
        what = "the pair does not differ" if len(pairs) == 1 else f"no pair of the {len(order)} methods differs"
        return f"{what} (smallest p after Holm {least:.2g}): the ranking is not significant"
    upside_down = [each for each in apart if each["difference"]["value"] < 0]
    if len(apart) == len(pairs) == math.comb(len(order), 2) and not upside_down:
        return f"all {len(pairs)} pairs differ after Holm: the ranking is significant throughout"
    best, group = order[0], alike(order, pairs)
    beaten = ", ".join(each["worse"] for each in apart if each["better"] == best and each not in upside_down)
    said = [f"{len(apart)} of {len(pairs)} pairs differ after Holm", f"{best}, the first, is ahead of {beaten or 'none'}"]
    if len(group) > 1:
        said.append(f"no pair among the first {len(group)} ({', '.join(group)}) differs: their order is not significant")
    said += [f"on the problems both answered {each['worse']} is ahead of {each['better']}" for each in upside_down]
    return "; ".join(said)


def alike(order: Sequence[str], pairs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The longest beginning of the order in which every two methods were compared and none differ."""
    same = {(each["better"], each["worse"]) for each in pairs if each["sign_flip_holm_p"] > ALPHA}
    group: list[str] = []
    for name in order:
        if any((other, name) not in same for other in group):
            break
        group.append(name)
    return group
