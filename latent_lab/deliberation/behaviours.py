"""What reasoning is made of, by rules: each sentence gets the first of six behaviours whose words it has.

The rules count words, they do not understand: a sentence that checks a result without saying so is none, and the wording of
another model or language is another count. They tell how texts differ, not how much of a behaviour there truly is.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from itertools import groupby
from typing import Any

from latent_lab.deliberation.chains import Chain
from latent_lab.deliberation.outcomes import rate, share_of_sums

RULES = {
    "backtracking": r"wait|hold on|go(?:ing)? back|start over|that(?:'s| is) (?:wrong|not right)|i made a mistake|scratch that"
    r"|on second thought|let me (?:re-?\w+|double[- ]check)|instead,? (?:let|try)",
    "uncertainty": r"maybe|perhaps|possibly|not sure|i think|might|unclear|hmm+|i wonder|not certain|seems?",
    "example_testing": r"for (?:example|instance)|suppose|let(?:'s| us| me) (?:try|test|check|plug|take)|try(?:ing)? \w+ ?="
    r"|test case|plug(?:ging)? in|check(?:ing)? (?:if|whether|with)",
    "adding_knowledge": r"recall|remember|know that|known|theorem|formula|by definition|identity|lemma|property of",
    "initializing": r"the (?:problem|question) (?:is|asks|says|states|gives)|we (?:are|'re) given|we are asked"
    r"|(?:i|we) need to (?:find|figure|solve)|let(?:'s| us| me) (?:start|begin)|first,? (?:let|i)",
    "deduction": r"so|therefore|thus|hence|then|which means|implies|because|since|it follows|we (?:get|have|obtain)|gives",
}
"""Behaviours and the words that show them; the first that fits counts, as rarer signs stand before commoner ones."""
COMPILED = {name: re.compile(rf"\b(?:{words})\b", re.IGNORECASE) for name, words in RULES.items()}
OTHER = "other"
NAMES = (*RULES, OTHER)
TEXTS = ("reasoning", "summary")
"""What of an iteration is looked at."""
SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
"""Where one sentence ends and the next begins; a number's point has no space after it."""


def behaviour(sentence: str) -> str:
    """The behaviour a sentence shows, one of :data:`RULES` or ``other``."""
    return next((name for name, words in COMPILED.items() if words.search(sentence)), OTHER)


def sentences(text: str) -> list[str]:
    """The sentences of a text."""
    return [sentence for sentence in SENTENCE.split(text) if sentence.strip()]


def counted(text: str) -> Counter[str]:
    """How many sentences of a text show each behaviour."""
    return Counter(map(behaviour, sentences(text)))


def runs(text: str) -> list[str]:
    """The behaviours of a text in their order, each run of one of them once; sentences that show none are left out."""
    return [name for name, _ in groupby(name for name in map(behaviour, sentences(text)) if name != OTHER)]


def kept(chains: Sequence[Chain], k: int, seed: int) -> dict[str, Any] | None:
    """What summaries keep of the behaviours of the reasoning they are made of; None where there are no such pairs.

    ``covered`` is the share of behaviours that the summary shows as well. ``in_order`` is how alike both are in their order once
    runs are collapsed: twice what matches, in stretches, by the length of both.
    """
    at = [(chain, runs(each.reasoning), runs(each.summary)) for chain in chains
          if (each := chain.iterations[k]).reasoning and each.summary]  # fmt: skip
    told = [(chain, whole, part) for chain, whole, part in at if whole]
    if not told:
        return None
    covered = [len({*whole} & {*part}) / len({*whole}) for _, whole, part in told]
    alike = [SequenceMatcher(None, whole, part, autojunk=False).ratio() for _, whole, part in told]
    of = [chain for chain, _, _ in told]
    return {"texts": len(told), "covered": rate(of, covered, seed), "in_order": rate(of, alike, seed)}


def behaviours(
    chains: Sequence[Chain], field: str, k: int, seed: int, count: Callable[[str], Counter[str]] = counted
) -> dict[str, Any] | None:
    """Of one iteration's texts (``field`` is reasoning or summary) each behaviour's share of sentences, resampled by problem.

    ``count`` says what the sentences of a text show. None where the form holds no such texts.
    """
    told = [(chain.problem, count(text)) for chain in chains if (text := getattr(chain.iterations[k], field))]
    total = sum(counts.total() for _, counts in told)
    if not total:
        return None
    shares = {}
    for name in NAMES:
        pairs = [(problem, counts[name], counts.total()) for problem, counts in told]
        shares[name] = {"count": sum(counts[name] for _, counts in told), **share_of_sums(pairs, seed).as_dict()}
    return {"texts": len(told), "sentences_per_text": total / len(told), "shares": shares}
