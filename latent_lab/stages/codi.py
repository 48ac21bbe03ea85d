"""Self-distillation (CODI, arXiv 2502.21074): the model that thinks in slots learns from itself writing the chain out.

In one step the same problem is laid out twice: with slots, and with its chain in words. Besides both answers (and the written
chain) the states of all layers just before the answer must agree. There is no curriculum.
"""

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import TYPE_CHECKING

from latent_lab.problems import Problem
from latent_lab.schedule import Phase
from latent_lab.sequences import Encoded, LatentTokens, Sequence, Tokenizer, encode, join
from latent_lab.stages.base import Thinking

if TYPE_CHECKING:
    from latent_lab.supervision import Distillation


@dataclass
class CODI(Thinking):
    """How many thoughts, and what the losses weigh."""

    projection: str = "mlp"
    """What a thought passes through: ``mlp`` (published), ``linear`` (starts as the identity), ``none``."""
    thoughts: int = 6
    """Latent slots of every problem."""
    teacher: float = 1.0
    """Weight of the loss of the written chain and its answer (published: beta)."""
    match: float = 1.0
    """Weight of the distance between the states before the answer (published: gamma; 20 for Llama)."""
    drop_last_step: bool = False
    """Leave the last step, which often holds the answer, out of the teacher's chain (published for GSM8K-Aug)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.epochs) != 1:
            raise ValueError(f"epochs={self.epochs}: give one number, the passes in all")
        if self.thoughts < 1:
            raise ValueError(f"thoughts={self.thoughts}: allowed are 1 and more")
        for name in ("teacher", "match"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: allowed are weights of 0 and more")

    @property
    def matches_layers(self) -> bool:
        """See :class:`latent_lab.stages.base.Stage`."""
        return True

    def phases(self) -> list[Phase]:
        """See :class:`latent_lab.stages.base.Stage`."""
        return [self.phase(0, self.epochs[0])]

    def distillation(self) -> "Distillation":
        """See :class:`latent_lab.stages.base.Stage`."""
        from latent_lab.supervision import Distillation

        return Distillation(self.teacher, self.match)

    def encode(self, problems: Seq[Problem], tokenizer: Tokenizer) -> list[Encoded]:
        """See :class:`latent_lab.stages.base.Stage`."""
        return encode(problems, tokenizer, with_prefix=True, around=self.around(tokenizer))

    def num_slots(self, stage: int) -> int:
        """See :class:`latent_lab.stages.base.Stage`."""
        return self.thoughts

    def sequence(self, problem: Encoded, tokens: LatentTokens, stage: int, draw: str | None = None) -> Sequence:
        """See :class:`latent_lab.stages.base.Stage`."""
        chain: list[int | None] = list(range(len(problem.steps)))
        slots = (chain + [None] * self.thoughts)[: self.thoughts]
        closed = self.answer_sees != "all"
        return join(problem, tokens, slots=slots, is_stop_predicted=self.train_stop, is_closed=closed)

    def teacher_sequence(self, problem: Encoded) -> Sequence:
        """See :class:`latent_lab.stages.base.Stage`."""
        return join(problem, None, steps=range(max(len(problem.steps) - self.drop_last_step, 0)))

    def shape(self, problem: Encoded, stage: int, draw: str | None = None) -> tuple[int, int, int]:
        """See :class:`latent_lab.stages.base.Stage`; the teacher's chain counts, so that it is padded little, too."""
        chain = sum(map(len, problem.steps))
        return self.thoughts, len(problem.question), chain + len(problem.answer)

    def prompt(self, problem: Encoded, tokens: LatentTokens, stage: int, num_slots: int | None = None) -> Sequence:
        """See :class:`latent_lab.stages.base.Stage`."""
        slots = [None] * (self.thoughts if num_slots is None else num_slots)
        return join(problem, tokens, slots=slots, with_target=False, is_closed=self.answer_sees != "all")
