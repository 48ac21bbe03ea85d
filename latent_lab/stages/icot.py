"""Stepwise internalisation (iCoT, arXiv 2405.14838): the chain is taken away token by token from its left, without substitute.

Every ``1 / tokens_per_epoch`` epochs one more token is removed; a little chance (removal smoothing) sometimes removes more, so
that the next removal is no surprise; past a threshold all of the chain goes at once.
"""

import math
import random
from dataclasses import dataclass, replace

from latent_lab.schedule import Phase
from latent_lab.sequences import Encoded, LatentTokens, Role, Sequence, lay
from latent_lab.stages.base import Stage


@dataclass
class ICoT(Stage):
    """How fast the chain is removed. ``epochs`` is one number: passes in all.

    Differs from paper: question, chain and answer are written as everywhere in this laboratory, no end-of-text token between.
    """

    tokens_per_epoch: float = 8.0
    """Tokens removed in an epoch (published: remove_per_epoch)."""
    remove_all_at: int | None = 39
    """Once so many tokens are due, the whole chain goes; null: never (published: remove_all_when_remove_beyond)."""
    keep_positions: bool = False
    """Leave the positions of removed tokens free: the last token of the question takes that of the last one removed, so that
    what follows stays where it was (published: keep_position). Differs from there: as many as are due, for every problem; there
    no more than the gold chain has, which at an evaluation tells the model its length."""
    smoothing: float = 4.0
    """Rate of the exponential law by which more tokens are removed than it is time for: none with probability
    ``1 - exp(-smoothing)``, .982 at 4; 0 turns it off."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.epochs) != 1:
            raise ValueError(f"epochs={self.epochs}: give one number, the passes in all")
        if self.tokens_per_epoch <= 0:
            raise ValueError(f"tokens_per_epoch={self.tokens_per_epoch}: allowed are numbers above 0")
        if self.remove_all_at is not None and self.remove_all_at < 0:
            raise ValueError(f"remove_all_at={self.remove_all_at}: allowed are 0 and more, or null")
        if self.smoothing < 0:
            raise ValueError(f"smoothing={self.smoothing}: allowed are 0 (off) and more")

    def phases(self) -> list[Phase]:
        """See :class:`Stage`: a phase for each number of removed tokens; validated where an epoch ends, and at the last."""
        count = math.ceil(self.epochs[0] * self.tokens_per_epoch)
        last = count - 1 if self.remove_all_at is None else min(count - 1, self.remove_all_at)
        each = 1 / self.tokens_per_epoch
        crosses = [math.floor((s + 1) * each) > math.floor(s * each) for s in range(last)]
        phases = [self.phase(s, each, is_validated=crosses[s]) for s in range(last)]
        return [*phases, self.phase(last, self.epochs[0] - last * each)]

    def removed(self, problem: Encoded, stage: int, draw: str | None = None) -> int:
        """How many tokens of the chain are gone, with ``stage`` of them due; a function of (seed, epoch, stage, id) alone."""
        chain = sum(map(len, problem.steps))
        if self.remove_all_at is not None and stage >= self.remove_all_at:
            return chain
        return min(stage + self._more(problem, stage, draw), chain)

    def _more(self, problem: Encoded, stage: int, draw: str | None) -> int:
        """How many tokens more than are due removal smoothing takes."""
        if not self.smoothing or draw is None or (self.remove_all_at is not None and stage >= self.remove_all_at):
            return 0
        chance = random.Random(f"smoothing/{draw}/{stage}/{problem.id}").random()
        return math.floor(-math.log1p(-chance) / self.smoothing)  # P(more >= k) = exp(-smoothing * k)

    def sequence(self, problem: Encoded, tokens: LatentTokens, stage: int, draw: str | None = None) -> Sequence:
        """See :class:`Stage`."""
        chain = tuple(i for step in problem.steps for i in step)[self.removed(problem, stage, draw) :]
        question = (Role.QUESTION, problem.question, False)
        parts = [question, (Role.STEP, chain, True), (Role.ANSWER, problem.answer, True)]
        # What smoothing takes beyond the end of a chain leaves no position free, so that no row is longer than is checked for.
        most = max(sum(map(len, problem.steps)), stage)
        gap = min(stage + self._more(problem, stage, draw), most) if self.keep_positions else 0
        return replace(lay(problem, parts), gap=gap)

    def shape(self, problem: Encoded, stage: int, draw: str | None = None) -> tuple[int, int, int]:
        """See :class:`Stage`."""
        left = sum(map(len, problem.steps)) - self.removed(problem, stage, draw)
        return 0, len(problem.question), left + len(problem.answer)

    def prompt(self, problem: Encoded, tokens: LatentTokens, stage: int, num_slots: int | None = None) -> Sequence:
        """See :class:`Stage`."""
        return replace(lay(problem, [(Role.QUESTION, problem.question, False)]), gap=self.gap(stage))

    def gap(self, stage: int) -> int:
        """See :class:`Stage`: as many as are due, where a chain was shorter, too, for a question does not tell its length."""
        return stage if self.keep_positions else 0
