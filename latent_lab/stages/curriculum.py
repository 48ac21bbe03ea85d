"""The Coconut curriculum (arXiv 2412.06769, section 3): step by step, the written chain of thought becomes latent.

At stage k the first k steps of the chain are replaced by ``k * latents_per_step`` latent slots; past the longest chain every
step is gone. ``latents_from=end`` replaces the last k steps instead (the order cocoracle trains in).
"""

import random
from dataclasses import dataclass, field

from latent_lab.sequences import Encoded, LatentTokens, Sequence, join

KINDS = ("coconut", "cot", "no_cot")
ENDS = ("start", "end")


@dataclass
class Curriculum:
    """How a problem looks at each stage, and for how long each stage trains."""

    kind: str = "coconut"
    """``coconut``; ``cot`` writes every step and ``no_cot`` none, both without markers and slots."""
    stages: list[int] = field(default_factory=lambda: [0])
    """Stages this run trains, in order. Each stage above 0 starts where the one before ended."""
    epochs: list[int] = field(default_factory=lambda: [3])
    """Passes over the training split for each entry of ``stages``; the last number holds for the rest."""
    latents_per_step: int = 1
    """Latent slots for each step made latent (the paper's c)."""
    max_stage: int = 6
    """Past this stage no more slots are added and every step is removed."""
    pad_to_max: bool = True
    """True: ``stage * latents_per_step`` slots whatever the chain's length. False: slots only for steps the chain has."""
    latents_from: str = "start"
    """Which steps become latent first: those at the ``start`` (Coconut) or at the ``end`` (cocoracle) of the chain."""
    mix: float = 0.0
    """Probability that a problem is laid out at a stage drawn uniformly from 0 to the current one (published: uniform_prob)."""
    reset_optimizer: bool = False
    """Start each stage with a fresh optimiser."""
    supervision: float = 0.0
    """Weight of the loss of an auxiliary decoder that must write step k's text from thought k (the idea of SIM-CoT)."""

    def __post_init__(self) -> None:
        for name, value, allowed in (("kind", self.kind, KINDS), ("latents_from", self.latents_from, ENDS)):
            if value not in allowed:
                raise ValueError(f"{name}={value}: allowed are {', '.join(allowed)}")
        if not self.stages or min(self.stages) < 0 or sorted(set(self.stages)) != self.stages:
            raise ValueError(f"stages={self.stages}: give one or more stages, 0 and up, in rising order")
        if not self.epochs or min(self.epochs) < 0:
            raise ValueError(f"epochs={self.epochs}: give one or more numbers, 0 and up")
        if len(self.epochs) > len(self.stages):
            raise ValueError(f"epochs={self.epochs}: at most one for each of stages={self.stages}")
        for name, at_least in (("latents_per_step", 1), ("max_stage", 0)):
            if getattr(self, name) < at_least:
                raise ValueError(f"{name}={getattr(self, name)}: allowed are {at_least} and more")
        if not 0 <= self.mix <= 1:
            raise ValueError(f"mix={self.mix}: allowed are probabilities from 0 to 1")
        if self.supervision < 0:
            raise ValueError(f"supervision={self.supervision}: allowed are weights of 0 and more")
        if self.kind != "coconut" and (self.stages != [0] or self.mix or self.supervision):
            raise ValueError(f"kind={self.kind}: it has no latent stages, so stages must be [0], mix and supervision 0")

    def num_slots(self, stage: int) -> int:
        """Latent slots of an evaluation prompt at a stage: a fixed number that never depends on the gold chain."""
        return min(stage, self.max_stage) * self.latents_per_step if self.kind == "coconut" else 0

    def stage_of(self, stage: int, seed: int, epoch: int, problem: Encoded) -> int:
        """Stage a problem is laid out at, mixing included; a function of (seed, epoch, id) alone."""
        if not self.mix:
            return stage
        rng = random.Random(f"mix/{seed}/{epoch}/{problem.id}")
        return rng.randint(0, stage) if rng.random() < self.mix else stage

    def sequence(self, problem: Encoded, tokens: LatentTokens, stage: int) -> Sequence:
        """Lay a problem out for training at a stage, with slots, written steps and answer."""
        chain = len(problem.steps)
        if self.kind != "coconut":
            return join(problem, None, steps=range(chain) if self.kind == "cot" else ())
        latent = chain if stage > self.max_stage else min(stage, chain)
        first = 0 if self.latents_from == "start" else chain - latent
        thought_of = list(range(first, first + latent))[: self.max_stage]
        slots = [step for step in thought_of for _ in range(self.latents_per_step)]
        if self.pad_to_max:
            slots += [None] * (self.num_slots(stage) - len(slots))
        if self.latents_from == "end":
            return join(problem, tokens, before=range(first), slots=slots)
        return join(problem, tokens, slots=slots, steps=range(latent, chain))

    def prompt(self, problem: Encoded, tokens: LatentTokens, stage: int) -> Sequence:
        """Lay a problem out for free-running evaluation: question, markers and a fixed number of slots; nothing of the gold chain."""
        if self.kind != "coconut":
            return join(problem, None, with_target=False)
        return join(problem, tokens, slots=[None] * self.num_slots(stage), with_target=False)
