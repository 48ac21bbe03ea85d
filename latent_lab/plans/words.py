"""Steps by a word: the one that tells a step best from the others (tf-idf), or the tag that stands before it."""

import math
import re
from collections import Counter
from collections.abc import Sequence as Seq
from dataclasses import dataclass

from latent_lab.plans.base import ASSIGNMENT, RESERVED, Label, Plan, PlanError
from latent_lab.problems import Problem

WORD = re.compile(r"[^\W\d_]+|[-+*/=]")
TAG = re.compile(r"\[([^\]\n]*)\](?:\s+and\s+\[[^\]\n]*\])*\s*:\s*")
TAGS = {"rag": "memory", "memory": "memory", "reason": "reason", "reasoning": "reason"}


@dataclass
class TfIdf(Plan):
    """The word (or sign) of a step with the largest product of its frequency there and the rarity of steps that have it."""

    least: float = 0.05
    """Leave out words in fewer than this share of the training steps (published)."""
    most: float = 0.8
    """Leave out words in more than this share (published)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.least <= self.most <= 1:
            raise ValueError(f"least={self.least}: allowed are shares from 0 to most={self.most}, which is at most 1")

    def learn(self, problems: Seq[Problem]) -> None:
        """See :class:`Plan`: the words, and how rare they are (as scikit-learn counts it: smoothed, plus 1)."""
        steps = [step for p in problems for step in p.steps]
        having = Counter(word for step in steps for word in set(words(step)))
        low, high = self.least * len(steps), self.most * len(steps)
        kept = {word: n for word, n in sorted(having.items()) if low <= n <= high and word not in RESERVED}
        if not kept:
            raise PlanError(
                f"plan.least={self.least}: no word stands in that share of the {len(steps)} training steps and in at most "
                f"plan.most={self.most}; allowed: a lower least or a higher most"
            )
        self.state["rarity"] = {word: math.log((1 + len(steps)) / (1 + n)) + 1 for word, n in kept.items()}

    def own_kinds(self) -> tuple[str, ...]:
        """See :class:`Plan`."""
        return tuple(self.state["rarity"])

    def own_labels(self, problems: Seq[Problem]) -> list[tuple[Label, ...]]:
        """See :class:`Plan`."""
        return [tuple(self.label(step) for step in p.steps) for p in problems]

    def label(self, step: str) -> Label:
        """The word of one step; of equals the first by the alphabet."""
        rarity = self.state["rarity"]
        weights = {word: count * rarity[word] for word, count in Counter(words(step)).items() if word in rarity}
        return (min(weights, key=lambda word: (-weights[word], word)),) if weights else (ASSIGNMENT,)


def words(step: str) -> list[str]:
    """The words and signs of a step, in small letters."""
    return WORD.findall(step.casefold())


@dataclass
class MemoryReason(Plan):
    """What a step draws on, as its tag says: ``[rag]: ...`` is from memory, ``[reason]: ...`` follows (arXiv 2411.13504).

    Differs from paper: ``[reasoning]`` is reason (the published code takes every tag but ``[reason]`` for memory), and an unknown
    tag is an error. Of several, as in ``[reason] and [rag]: ...``, the first counts.
    """

    def own_kinds(self) -> tuple[str, ...]:
        """See :class:`Plan`."""
        return ("reason", "memory")

    def own_labels(self, problems: Seq[Problem]) -> list[tuple[Label, ...]]:
        """See :class:`Plan`."""
        return [tuple((self._kind(step, p),) for step in p.steps) for p in problems]

    def text(self, step: str) -> str:
        """A step without its tag."""
        return TAG.sub("", step, count=1) if TAG.match(step) else step

    def _kind(self, step: str, problem: Problem) -> str:
        tag = TAG.match(step)
        kind = TAGS.get(tag[1].strip().casefold()) if tag else None
        if kind is None:
            raise PlanError(
                f"{problem.id}: the step {step[:40]!r} has no known tag; allowed before every step: "
                f"{', '.join(f'[{name}]:' for name in TAGS)}"
            )
        return kind
