"""The Coconut curriculum (arXiv 2412.06769, section 3) and its baselines: step by step, the written chain becomes latent.

At stage k the first k steps of the chain are replaced by ``k * latents_per_step`` latent slots; past the longest chain every
step is gone. ``latents_from=end`` replaces the last k steps instead (the order cocoracle trains in).
"""

import random
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from latent_lab.loop import Loop, loop_of
from latent_lab.schedule import Phase
from latent_lab.sequences import Encoded, LatentTokens, Sequence, join
from latent_lab.stages.base import Thinking, one_of

if TYPE_CHECKING:
    from latent_lab.job import Job

KINDS = ("coconut", "pause", "no_thoughts", "cot", "no_cot")
ENDS = ("start", "end")
PADS = ("max", "chain", "published_mismatch")
POOLS = ("reached", "chain")

FED_BACK = ("feedback", "projection", "match_norm", "detach", "rounds")
IN_SLOTS = (*FED_BACK, "latents_per_step", "pad", "answer_sees", "train_stop", "supervision", "multipass")
IN_STAGES = ("max_stage", "latents_from", "mix", "mix_from", "curriculum")
UNUSED = {
    "coconut": (("multipass",), "has one pass a slot anyway"),
    "pause": (FED_BACK, "feeds no thought back"),
    "no_thoughts": (IN_SLOTS, "has no latent slots"),
    "cot": (IN_SLOTS + IN_STAGES, "has no latent slots"),
    "no_cot": (IN_SLOTS + IN_STAGES, "has no latent slots"),
}
"""Settings that a kind has no use for, and why."""


@dataclass
class Curriculum(Thinking):
    """How a problem looks at each stage, and for how long each stage trains."""

    kind: str = "coconut"
    """``coconut``; ``pause``: the same layout, but slots are ordinary learned tokens; ``no_thoughts``: steps vanish and no slots
    come; ``cot`` writes every step and ``no_cot`` none. The last three have no markers."""
    stages: list[int] = field(default_factory=lambda: [0])
    """Stages this run trains, in order. Each stage above 0 starts where the one before ended."""
    curriculum: bool = True
    """False: straight to the given stages; no stage before them is trained."""
    latents_per_step: int = 1
    """Latent slots for each step made latent (the paper's c)."""
    max_stage: int = 6
    """Past this stage no more slots are added and every step is removed: an extra final stage is ``max_stage + 1``."""
    pad: str = "max"
    """``max``: ``stage * latents_per_step`` slots whatever the chain's length; ``chain``: slots only for steps the chain has;
    ``published_mismatch``: the first up to ``max_stage``, the second past it, as the published code does without
    pad_latent_to_max while its evaluation always does the second."""
    latents_from: str = "start"
    """Which steps become latent first: those at the ``start`` (Coconut) or at the ``end`` (cocoracle) of the chain."""
    mix: float = 0.0
    """Probability that a problem is laid out at a stage drawn uniformly (published: uniform_prob)."""
    mix_from: str = "reached"
    """The stages drawn from: 0 to the current one (``reached``), or 0 to the length of the chain (``chain``, published)."""
    multipass: bool = False
    """For ``pause``: run the slots one by one, as thoughts must be; the same function, computed as slowly."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, allowed in (("kind", KINDS), ("latents_from", ENDS), ("pad", PADS), ("mix_from", POOLS)):
            one_of(self, name, allowed)
        if not self.stages or min(self.stages) < 0 or sorted(set(self.stages)) != self.stages:
            raise ValueError(f"stages={self.stages}: give one or more stages, 0 and up, in rising order")
        if len(self.epochs) > len(self.stages):
            raise ValueError(f"epochs={self.epochs}: at most one for each of stages={self.stages}")
        for name, at_least in (("latents_per_step", 1), ("max_stage", 0)):
            if getattr(self, name) < at_least:
                raise ValueError(f"{name}={getattr(self, name)}: allowed are {at_least} and more")
        if not 0 <= self.mix <= 1:
            raise ValueError(f"mix={self.mix}: allowed are probabilities from 0 to 1")
        if self.kind in ("cot", "no_cot") and self.stages != [0]:
            raise ValueError(f"stages={self.stages}: stage.kind={self.kind} has no latent stages; allowed: [0]")
        if self.kind == "pause" and self.alone:
            raise ValueError("answer_sees=vectors: stage.kind=pause feeds no thought back; allowed are all, thoughts")
        unused, why = UNUSED[self.kind]
        for setting in fields(self):
            if setting.name in unused and getattr(self, setting.name) != setting.default:
                value = getattr(self, setting.name)
                raise ValueError(f"{setting.name}={value}: stage.kind={self.kind} {why}; allowed: leave it out")

    @property
    def has_slots(self) -> bool:
        """See :class:`latent_lab.stages.base.Stage`."""
        return self.kind in ("coconut", "pause")

    @property
    def needs_steps(self) -> bool:
        """See :class:`latent_lab.stages.base.Stage`."""
        return self.kind != "no_cot"

    @property
    def chain_needed(self) -> tuple[int, int] | None:
        """See :class:`latent_lab.stages.base.Stage`; where slots are padded, one stage more takes none but adds one."""
        is_chosen = self.kind not in ("cot", "no_cot") and self.curriculum and len(self.stages) == 1
        return (self.stages[0], int(self.pad == "max" and self.has_slots)) if is_chosen else None

    def loop(self) -> Loop:
        """See :class:`latent_lab.stages.base.Stage`."""
        return loop_of(self, feeds="tokens" if self.kind == "pause" else "thoughts")

    def phases(self) -> list[Phase]:
        """See :class:`latent_lab.stages.base.Stage`."""
        epochs = [*self.epochs, *[self.epochs[-1]] * len(self.stages)]
        return [self.phase(stage, epochs[i]) for i, stage in enumerate(self.stages)]

    def before(self, job: "Job") -> "Job | None":
        """See :class:`latent_lab.stages.base.Stage`: the job of the stage before the first of ours."""
        from latent_lab.overrides import options

        number = self.stages[0] - 1
        if number < 0 or not self.curriculum:
            return None
        if job.chosen("stage") == str(self.stages[0]) and str(number) in options("stage"):
            earlier = job.sibling(stage=str(number))
            if earlier.config.stage.stages == [number]:
                return earlier
        return job.sibling(**{"stage.stages": f"[{number}]"})

    def num_slots(self, stage: int) -> int:
        """See :class:`latent_lab.stages.base.Stage`."""
        return min(stage, self.max_stage) * self.latents_per_step if self.has_slots else 0

    def stage_of(self, problem: Encoded, stage: int, draw: str | None) -> int:
        """Stage a problem is laid out at, mixing included; a function of (seed, epoch, id) alone.

        Differs from paper: the published code draws from 0 to the length of the chain, stages not reached yet included, unless
        ``mix_from=chain`` asks for that.
        """
        if not self.mix or draw is None:
            return stage
        rng = random.Random(f"mix/{draw}/{problem.id}")
        most = stage if self.mix_from == "reached" else len(problem.steps)
        return rng.randint(0, most) if rng.random() < self.mix else stage

    def parts(self, problem: Encoded, stage: int) -> tuple[range, list[int | None], range]:
        """The steps written before thinking, the step each slot stands for, and the steps written after."""
        chain = len(problem.steps)
        if self.kind in ("cot", "no_cot"):
            return range(0), [], range(chain if self.kind == "cot" else 0)
        latent = chain if stage > self.max_stage else min(stage, chain)
        first = 0 if self.latents_from == "start" else chain - latent
        held = min(latent, self.max_stage)  # past the last stage that adds slots, some steps go without
        begin = first if self.latents_from == "start" else chain - held
        slots: list[int | None] = []
        if self.has_slots:
            slots = [s for s in range(begin, begin + held) for _ in range(self.latents_per_step)]
            if self.pad == "max" or (self.pad == "published_mismatch" and stage <= self.max_stage):
                slots += [None] * (self.num_slots(stage) - len(slots))
        return range(first), slots, range(first + latent, chain)

    def sequence(self, problem: Encoded, tokens: LatentTokens, stage: int, draw: str | None = None) -> Sequence:
        """See :class:`latent_lab.stages.base.Stage`."""
        stage = self.stage_of(problem, stage, draw)
        before, slots, after = self.parts(problem, stage)
        return join(
            problem,
            self._markers(tokens),
            before=before,
            slots=slots,
            steps=after,
            is_start_predicted=self.writes_first(),
            is_stop_predicted=self.train_stop,
            is_closed=self.is_closed(stage),
        )

    def shape(self, problem: Encoded, stage: int, draw: str | None = None) -> tuple[int, int, int]:
        """See :class:`latent_lab.stages.base.Stage`."""
        before, slots, after = self.parts(problem, self.stage_of(problem, stage, draw))
        written = [sum(len(problem.steps[i]) for i in part) for part in (before, after)]
        return len(slots), len(problem.question) + written[0], written[1] + len(problem.answer)

    def prompt(self, problem: Encoded, tokens: LatentTokens, stage: int, num_slots: int | None = None) -> Sequence:
        """See :class:`latent_lab.stages.base.Stage`."""
        slots = [None] * (self.num_slots(stage) if num_slots is None else num_slots)
        return join(problem, self._markers(tokens), slots=slots, with_target=False, is_closed=self.is_closed(stage))

    def is_closed(self, stage: int) -> bool:
        """Whether the question is hidden from what follows the slots: only where no step is left to be written."""
        return self.answer_sees != "all" and stage >= self.max_stage

    def writes_first(self) -> bool:
        """See :class:`latent_lab.stages.base.Stage`."""
        return self.has_slots and self.latents_from == "end"

    def _markers(self, tokens: LatentTokens) -> LatentTokens | None:
        return tokens if self.has_slots else None
