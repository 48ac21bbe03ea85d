"""Solved problems shown before a question ("k-shot"), chosen from the training problems; never the problem itself. No torch."""

import random
from collections import Counter
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from latent_lab.plans.base import PlanError
from latent_lab.problems import Problem
from latent_lab.problems.likeness import Likeness
from latent_lab.sequences import Encoded

Ids = tuple[int, ...]
SHOTS_BY = ("random", "similar")


@dataclass(frozen=True)
class Examples:
    """Where examples are drawn from."""

    pool: Seq[Problem]
    """The training problems."""
    seed: int
    by: str = "random"
    """``random``; or the most ``similar`` questions, the most similar one last: steps and answers have no say in it."""

    @cached_property
    def _askings(self) -> Mapping[str, int]:
        return Counter(p.question for p in self.pool)

    @cached_property
    def _likeness(self) -> Likeness:
        return Likeness(self.pool)

    def drawn(self, problem: Problem, count: int) -> list[Problem]:
        """The examples for one problem: none asks the same. They depend on its question, id, seed and pool alone."""
        same = self._askings.get(problem.question, 0)
        if count > len(self.pool) - same:
            raise PlanError(
                f"shots={count}: there are {len(self.pool) - same} training problems besides {problem.id}; allowed: up to that"
            )
        if self.by == "similar":
            nearest = (-self._likeness.to(problem.question)).argsort(kind="stable")[:count]
            return [self.pool[i] for i in reversed(nearest)]
        rng = random.Random(f"{self.seed}/{problem.id}")
        some = rng.sample(self.pool, min(count + same, len(self.pool)))
        return [p for p in some if p.question != problem.question][:count]

    def before(
        self, problems: Seq[Problem], encoded: Seq[Encoded], count: int, tokenizer: Any, lay: Callable[..., list[Ids]]
    ) -> list[Encoded]:
        """Put ``count`` examples before each question; ``lay`` says what one looks like.

        Where a tokenizer begins every text with a token of its own, only the first example has it.
        """
        drawn = [self.drawn(p, count) for p in problems]
        shown = list({id(p): p for examples in drawn for p in examples}.values())
        laid = {id(p): ids for p, ids in zip(shown, lay(shown, tokenizer), strict=True)}
        begin = getattr(tokenizer, "bos_token_id", None)
        asked = []
        for e, examples in zip(encoded, drawn, strict=True):
            first, *others = [*(laid[id(p)] for p in examples), e.question]
            rest = (i for ids in others for i in (ids[1:] if ids[:1] == (begin,) else ids))
            asked.append(replace(e, question=(*first, *rest)))
        return asked
