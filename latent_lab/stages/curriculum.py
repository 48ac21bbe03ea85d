"""The Coconut curriculum (arXiv 2412.06769, section 3): step by step, the written chain of thought becomes latent.

At stage k the first k steps of the chain are replaced by ``k * latents_per_step`` latent slots; past the longest chain every
step is gone. ``latents_from=end`` replaces the last k steps instead (the order cocoracle trains in).
"""

import logging
import os
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latent_lab.sequences import Encoded, LatentTokens, Sequence, join

if TYPE_CHECKING:
    from latent_lab.job import Job

log = logging.getLogger(__name__)

KINDS = ("coconut", "cot", "no_cot")
ENDS = ("start", "end")
DECODERS = ("autoregressive", "linear")


@dataclass
class Curriculum:
    """How a problem looks at each stage, and for how long each stage trains."""

    kind: str = "coconut"
    """``coconut``; ``cot`` writes every step and ``no_cot`` none, both without markers and slots."""
    stages: list[int] = field(default_factory=lambda: [0])
    """Stages this run trains, in order. Each stage above 0 starts where the one before ended."""
    epochs: list[float] = field(default_factory=lambda: [3.0])
    """Passes over the training split for each entry of ``stages``, fractions allowed; the last number holds for the rest."""
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
    decoder: str = "autoregressive"
    """That decoder: ``autoregressive`` (a small language model, as published) or ``linear`` (cannot compute, only read)."""

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("kind", self.kind, KINDS),
            ("latents_from", self.latents_from, ENDS),
            ("decoder", self.decoder, DECODERS),
        ):
            if value not in allowed:
                raise ValueError(f"{name}={value}: allowed are {', '.join(allowed)}")
        if not self.stages or min(self.stages) < 0 or sorted(set(self.stages)) != self.stages:
            raise ValueError(f"stages={self.stages}: give one or more stages, 0 and up, in rising order")
        if not self.epochs or not all(0 <= count < float("inf") for count in self.epochs):
            raise ValueError(f"epochs={self.epochs}: give one or more numbers, 0 and up")
        if not any(self.epochs):
            raise ValueError(f"epochs={self.epochs}: at least one must be above 0, or nothing is trained")
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

    def train(self, job: "Job") -> dict[str, Any]:
        """Train this run, and first the stage before it where its weights are needed; returns what ``result.json`` holds."""
        from latent_lab.config import NOT_RESULT
        from latent_lab.run import finished

        folder = Path(job.config.outputs) / job.slug
        is_alone = os.environ.get("WORLD_SIZE", "1") == "1"  # several processes must not decide this one by one
        if is_alone and not job.config.overwrite and (result := finished(folder, job.plain, NOT_RESULT)):
            log.info("%s is complete; its stored result is used (overwrite=true does it again)", folder)
            return result
        from latent_lab.stages.course import train  # only now: importing torch takes longer than all of the above

        return train(job)

    def num_slots(self, stage: int) -> int:
        """Latent slots of an evaluation prompt at a stage: a fixed number that never depends on the gold chain."""
        return min(stage, self.max_stage) * self.latents_per_step if self.kind == "coconut" else 0

    def stage_of(self, stage: int, seed: int, epoch: int, problem: Encoded) -> int:
        """Stage a problem is laid out at, mixing included; a function of (seed, epoch, id) alone.

        Differs from paper: the published code draws from 0 to the length of the chain, stages not reached yet included.
        """
        if not self.mix:
            return stage
        rng = random.Random(f"mix/{seed}/{epoch}/{problem.id}")
        return rng.randint(0, stage) if rng.random() < self.mix else stage

    def parts(self, problem: Encoded, stage: int) -> tuple[range, list[int | None], range]:
        """The steps written before thinking, the step each slot stands for, and the steps written after."""
        chain = len(problem.steps)
        if self.kind != "coconut":
            return range(0), [], range(chain if self.kind == "cot" else 0)
        latent = chain if stage > self.max_stage else min(stage, chain)
        first = 0 if self.latents_from == "start" else chain - latent
        held = min(latent, self.max_stage)  # past the last stage that adds slots, some steps go without
        begin = first if self.latents_from == "start" else chain - held
        slots: list[int | None] = [s for s in range(begin, begin + held) for _ in range(self.latents_per_step)]
        if self.pad_to_max:
            slots += [None] * (self.num_slots(stage) - len(slots))
        return range(first), slots, range(first + latent, chain)

    def sequence(self, problem: Encoded, tokens: LatentTokens, stage: int) -> Sequence:
        """Lay a problem out for training at a stage."""
        before, slots, after = self.parts(problem, stage)
        return join(
            problem, self._markers(tokens), before=before, slots=slots, steps=after, is_start_predicted=self.writes_first()
        )

    def shape(self, problem: Encoded, stage: int) -> tuple[int, int, int]:
        """Slots, tokens before them and tokens after them: what decides how well problems fit into one batch."""
        before, slots, after = self.parts(problem, stage)
        written = [sum(len(problem.steps[i]) for i in part) for part in (before, after)]
        return len(slots), len(problem.question) + written[0], written[1] + len(problem.answer)

    def prompt(self, problem: Encoded, tokens: LatentTokens, num_slots: int) -> Sequence:
        """Lay a problem out for free-running evaluation: question, markers and slots; nothing of the gold chain."""
        return join(problem, self._markers(tokens), slots=[None] * num_slots, with_target=False)

    def writes_first(self) -> bool:
        """Whether steps are written before thinking, so that the model itself says when it begins."""
        return self.kind == "coconut" and self.latents_from == "end"

    def _markers(self, tokens: LatentTokens) -> LatentTokens | None:
        return tokens if self.kind == "coconut" else None
