"""``stage=planning``: before each written step, tokens that announce its kind (planning tokens, arXiv 2310.05707).

What the kinds are is ``plan=``. Imports no torch.
"""

import re
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from latent_lab.loop import Loop, Segments
from latent_lab.plans.arithmetic import operators
from latent_lab.plans.base import Plan, PlanError
from latent_lab.plans.embedded import Embedded
from latent_lab.plans.examples import SHOTS_BY, Examples
from latent_lab.plans.layout import PLACES, TOKEN, Blocks
from latent_lab.plans.reading import Reading
from latent_lab.problems import Problem
from latent_lab.schedule import Phase
from latent_lab.sequences import Encoded, LatentTokens, Role, Sequence, Tokenizer, encode, join_planned, lay
from latent_lab.stages.base import DECODERS, Stage, one_of

if TYPE_CHECKING:
    from latent_lab.backbone import Backbone
    from latent_lab.batching import Batch
    from latent_lab.grading.evaluate import Solver
    from latent_lab.job import Job
    from latent_lab.supervision import SupervisedReasoner

SEEN = ("all", "segment", "question")
ROWS = ("word", "mean", "mean_noise", "centroid", "random")
IN_TOKENS = ("num_prefix", "num_special", "form", "rows_from", "text_sees", "earlier_plans")
"""Settings that blocks in words have no use for."""
WEIGHTS = {"plan_weight": Role.PLAN, "step_weight": Role.STEP, "answer_weight": Role.ANSWER}


@dataclass
class Planning(Stage):
    """Where planning tokens stand, how many there are, what they weigh, and which steps are thoughts. ``epochs`` are per stage.

    Differs from paper: question, steps and answer are written as everywhere in this laboratory, tokens without blanks between
    them, and the model writes all of them itself: nothing but the question is given to it.
    """

    num_prefix: int = 3
    """Tokens that every block begins with, whatever its kind."""
    num_special: int = 3
    """Tokens of each kind. A plan without kinds spends them on the prefix, so that blocks stay as long."""
    form: str = TOKEN
    """How a token is written, with what it is a token of in place of ``{kind}``, and its number."""
    names: list[str] = field(default_factory=list)
    """What kinds are called, the ``prefix`` among them, as in ``[memory:rag,prefix:plan]``; the others by their own names."""
    place: str = "steps"
    """Blocks stand before ``steps`` (and the answer); one at the ``front`` of all, without kinds; ``plan_first``: all blocks, a
    line each, and then again before their steps; ``plan_only``: the same without any step."""
    answer_block: bool = True
    """Announce the answer, too."""
    words: bool = False
    """Announce in words of the language in place of new tokens, as in ``Plan: addition. ``: hard prompts."""
    rows_from: str = "word"
    """New rows of the tables start as those of the ``word`` a kind is named by, as the ``mean`` of all, the same with noise
    (``mean_noise``), the mean over the steps of that kind (``centroid``), or ``random``."""
    plan_weight: float = 1.0
    """Weight of planning tokens in the loss; 0: they are read but never learned to be written."""
    step_weight: float = 1.0
    """Weight of the steps' tokens."""
    answer_weight: float = 1.0
    """Weight of the answer's tokens."""

    text_sees: str = "all"
    """What text attends to: ``all`` before it; only its own ``segment``, the block before it and what is written since; or that
    and the ``question``. Planning tokens see everything: what a step needs of the others must pass through them."""
    earlier_plans: int = 0
    """Where text sees not all: of how many blocks before its own it sees the tokens, too."""

    shots: int = 0
    """Solved problems shown before each question, in training and evaluation alike, drawn from the training problems by the run's
    seed and the problem's id; never the problem itself."""
    shots_by: str = "random"
    """Which ones: ``random``, or those with the most ``similar`` questions, the most similar one last."""

    stages: list[int] = field(default_factory=lambda: [0])
    """Stages trained one after another: at stage k the first k steps are no text but thoughts, each after its block."""
    latents_per_step: int = 1
    """Latent slots for each step that is a thought."""
    supervision: float = 0.0
    """Weight of the loss of an auxiliary decoder that must write a step's text from the last of its thoughts."""
    decoder: str = "linear"
    """That decoder: ``linear`` (cannot compute, only read) or ``autoregressive``."""

    takes_plan = True
    plan: ClassVar[Plan | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_stages()
        for name in ("num_prefix", "num_special", *WEIGHTS):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}={getattr(self, name)}: allowed are 0 and more")
        if not any(getattr(self, name) for name in WEIGHTS):
            raise ValueError(f"answer_weight={self.answer_weight}: one of the three weights must be above 0")
        self._check_names()
        one_of(self, "place", PLACES)
        one_of(self, "rows_from", ROWS)
        one_of(self, "text_sees", SEEN)
        if self.earlier_plans < 0 or (self.earlier_plans and self.text_sees == "all"):
            raise ValueError(
                f"earlier_plans={self.earlier_plans}: with text_sees={self.text_sees} allowed are "
                f"{'0: it sees them already' if self.text_sees == 'all' else '0 and more'}"
            )
        if self.words and self.has_slots:
            raise ValueError(f"words=true: a step is thought after its planning tokens; allowed with stages={self.stages}: false")
        for setting in fields(self):
            if self.words and setting.name in IN_TOKENS and (value := getattr(self, setting.name)) != setting.default:
                raise ValueError(f"{setting.name}={value}: words=true has no planning tokens; allowed: leave it out")
        self.check_shots()
        self.examples: Examples | None = None
        self.reading: Reading | None = None
        self.line: tuple[int, ...] = ()

    def check_shots(self) -> None:
        """Raise :class:`PlanError` unless so many examples can be shown."""
        if self.shots < 0:
            raise PlanError(f"shots={self.shots}: allowed are 0 and more")
        one_of(self, "shots_by", SHOTS_BY)
        if not self.shots and self.shots_by != "random":
            raise PlanError(f"shots_by={self.shots_by}: shots=0 shows no examples; allowed: leave it out, or shots of 1 and more")
        if self.shots and (self.has_slots or self.text_sees != "all"):
            given = f"stages={self.stages}" if self.has_slots else f"text_sees={self.text_sees}"
            reason = "an example has no thoughts to show" if self.has_slots else "a question's examples would be hidden from it"
            raise PlanError(f"shots={self.shots}: {reason}; allowed with {given}: 0")

    def _check_names(self) -> None:
        if any(self.form.count(each) != 1 for each in ("{kind}", "{number}")) or re.search(r"\s", self.form):
            raise ValueError(f"form={self.form}: allowed are texts without blanks that have {{kind}} and {{number}} once each")
        if not all(re.fullmatch(r"\S+:[^\s:]+", each) for each in self.names) or len(self.called) < len(self.names):
            raise ValueError(f"names={self.names}: allowed are names without blanks, one for each kind, as in [memory:rag]")

    @property
    def called(self) -> dict[str, str]:
        """``names`` by kind."""
        return {kind: name for kind, _, name in (each.rpartition(":") for each in self.names)}

    def _check_stages(self) -> None:
        if not self.stages or min(self.stages) < 0 or sorted(set(self.stages)) != self.stages:
            raise ValueError(f"stages={self.stages}: give one or more stages, 0 and up, in rising order")
        if len(self.epochs) > len(self.stages):
            raise ValueError(f"epochs={self.epochs}: at most one for each of stages={self.stages}")
        if self.has_slots and self.place != "steps":
            raise ValueError(
                f"place={self.place}: a thought stands after its own block; allowed with stages={self.stages}: steps"
            )
        for name, default in (("latents_per_step", 1), ("supervision", 0.0), ("decoder", "linear")):
            if not self.has_slots and getattr(self, name) != default:
                raise ValueError(
                    f"{name}={getattr(self, name)}: stages=[0] has no thoughts; allowed: leave it out, or more stages"
                )
        if self.latents_per_step < 1:
            raise ValueError(f"latents_per_step={self.latents_per_step}: allowed are 1 and more")
        if not 0 <= self.supervision < float("inf"):
            raise ValueError(f"supervision={self.supervision}: allowed are weights of 0 and more")
        one_of(self, "decoder", DECODERS)

    @property
    def has_slots(self) -> bool:
        """See :class:`Stage`."""
        return max(self.stages) > 0

    @property
    def thoughts_by(self) -> str:
        """See :class:`Stage`: a step is a thought where the model writes that it is."""
        return "model" if self.has_slots else "fixed"

    def num_slots(self, stage: int) -> int:
        """See :class:`Stage`: the most there can be."""
        return stage * self.latents_per_step

    def slots_when_said(self, stage: int) -> int:
        """See :class:`Stage`."""
        return self.latents_per_step if stage else 0

    def step_supervision(self) -> tuple[float, str]:
        """See :class:`Stage`."""
        return self.supervision, self.decoder

    @property
    def blocks(self) -> Blocks | None:
        """The plan's blocks; None where there are none."""
        if self.plan is None or not self.num_prefix + self.num_special:
            return None
        sizes = (1, 1) if self.words else (self.num_prefix, self.num_special)
        return Blocks(self.plan, *sizes, self.place, self.answer_block, self.words, self.form, self.called)

    def phases(self) -> list[Phase]:
        """See :class:`Stage`."""
        epochs = [*self.epochs, *[self.epochs[-1]] * len(self.stages)]
        return [self.phase(stage, epochs[i]) for i, stage in enumerate(self.stages)]

    def role_weights(self) -> dict[Role, float]:
        """See :class:`Stage`."""
        weights = {role: getattr(self, name) for name, role in WEIGHTS.items()}
        return weights if set(weights.values()) != {1.0} else {}

    def loop(self) -> Loop:
        """See :class:`Stage`; the planning tokens must have their ids (:meth:`encode`)."""
        if self.text_sees == "all" or self.reading is None:
            return Loop()
        return Loop(segments=Segments(self.reading.ids, self.text_sees == "question", self.earlier_plans))

    # What is laid out

    def encode(self, problems: Seq[Problem], tokenizer: Tokenizer) -> list[Encoded]:
        """See :class:`Stage`; the tokenizer must know the planning tokens (:meth:`prepare`), and examples are shown if there are
        any (:attr:`examples`)."""
        encoded = self._encode(problems, tokenizer)
        if not self.shots:
            return encoded
        if self.examples is None:
            raise PlanError(f"stage.shots={self.shots}: no training problems to draw examples from are at hand; allowed here: 0")
        return self.examples.before(problems, encoded, self.shots, tokenizer, self.shown)

    def show(self, problems: Seq[Problem], seed: int) -> None:
        """Draw the examples from these training problems."""
        self.check_shots()
        self.examples = Examples(problems, seed, self.shots_by)

    def shown(self, problems: Seq[Problem], tokenizer: Tokenizer) -> list[tuple[int, ...]]:
        """Problems as examples: question, plan, steps and answer with its end, as they are learned where none are shown."""
        return [join_planned(e, with_steps=self.has_text).ids for e in self._encode(problems, tokenizer)]

    def _encode(self, problems: Seq[Problem], tokenizer: Tokenizer) -> list[Encoded]:
        blocks, plan = self.blocks, self.plan
        bare = [replace(p, steps=tuple(map(plan.text, p.steps))) for p in problems] if plan else problems
        around = self.around(tokenizer)
        if blocks is None or plan is None:
            return [replace(e, plans=((),) * (len(e.steps) + 1)) for e in encode(bare, tokenizer, around=around)]
        read = self.reading = Reading(blocks, tokenizer)
        self.line = tuple(tokenizer(["\n"], add_special_tokens=False, split_special_tokens=True)["input_ids"][0])
        planned = []
        for e, labels in zip(encode(bare, tokenizer, around=around), plan.labels(problems), strict=True):
            written = tuple(map(read.coded, blocks.written(labels)))
            overview = tuple(i for block in blocks.overview(labels) for i in read.coded(block, is_line=True))
            planned.append(replace(e, plans=written, overview=overview))
        return planned

    def sequence(self, problem: Encoded, tokens: LatentTokens, stage: int, draw: str | None = None) -> Sequence:
        """See :class:`Stage`."""
        slots = (tokens.latent,) * self.latents_per_step
        return join_planned(problem, with_steps=self.has_text, latent=stage, slots=slots, line=self.line)

    def shape(self, problem: Encoded, stage: int, draw: str | None = None) -> tuple[int, int, int]:
        """See :class:`Stage`."""
        latent = min(stage, len(problem.steps))
        steps = sum(map(len, problem.steps[latent:])) if self.has_text else 0
        written = len(problem.overview) + sum(map(len, problem.plans)) + latent * len(self.line)
        first = len(problem.plans[0]) if latent else 0
        return latent * self.latents_per_step, len(problem.question) + first, written - first + steps + len(problem.answer)

    def prompt(self, problem: Encoded, tokens: LatentTokens, stage: int, num_slots: int | None = None) -> Sequence:
        """See :class:`Stage`: the question; the model writes everything else."""
        return lay(problem, [(Role.QUESTION, problem.question, False)])

    @property
    def has_text(self) -> bool:
        """Whether steps are written out."""
        return self.place != "plan_only" or self.blocks is None

    # What is learned besides weights, and what is made of replies

    def reads(self, job: "Job") -> "Job | None":
        """See :class:`Stage`: the same run without planning tokens, where it is to embed the steps."""
        if not isinstance(self.plan, Embedded) or self.plan.model:
            return None
        earlier = job.sibling(plan="none")
        self.plan.without = earlier.slug
        return earlier

    def prepare(self, backbone: "Backbone", problems: Seq[Problem], outputs: Path) -> None:
        """See :class:`Stage`: fit the plan on the training problems, and give its tokens rows."""
        if self.plan is None or self.blocks is None:
            return
        self.plan.outputs = outputs
        self.plan.fit(problems)
        self.blocks.check()
        if self.words:
            return
        from latent_lab.plans.rows import give_rows

        give_rows(backbone, self.blocks, self.rows_from, problems)

    def inspect(self, learner: "SupervisedReasoner", batch: "Batch", backbone: "Backbone", first: Sequence) -> None:
        """See :class:`Stage`."""
        if self.reading:
            from latent_lab.plans.startup import inspect

            inspect(learner, batch, backbone, self.reading, first)

    def save(self, folder: Path) -> None:
        """See :class:`Stage`."""
        if self.plan is not None:
            self.plan.save(folder)

    def restore(self, folder: Path, outputs: Path) -> None:
        """See :class:`Stage`."""
        if self.plan is not None:
            self.plan.outputs = outputs
            self.plan.load(folder)

    def plain(self, ids: list[int]) -> list[int]:
        """See :class:`Stage`: a reply without its planning tokens."""
        return self.reading.plain(ids) if self.reading else ids

    def columns(self, problem: Encoded, ids: list[int]) -> dict[str, Any]:
        """See :class:`Stage`: the plan of a reply beside the gold chain's."""
        if self.reading is None:
            return {}
        gold = join_planned(problem, with_steps=self.has_text).ids[len(problem.question) : -1]
        written, true = self.reading.read(ids), self.reading.read(gold)  # a step is announced alike, written or thought
        return {
            "plan": list(written.kinds),
            "plan_gold": list(true.kinds),
            "plan_steps": list(written.steps),
            "plan_operators": [" ".join(operators(step)) for step in written.steps],
            "plan_gold_operators": [" ".join(operators(step)) for step in true.steps],
            "plan_well_formed": written.is_well_formed,
            "plan_tokens": written.num_tokens,
        }

    def measures(
        self, solver: "Solver", problems: Seq[Problem], encoded: Seq[Encoded], rows: Seq[dict[str, Any]]
    ) -> dict[str, Any]:
        """See :class:`Stage`: what became of the plans."""
        if self.reading is None:
            return {}
        from latent_lab.plans.measures import measures

        assert self.plan is not None
        return {"plans": {"hash": self.plan.hash(), **measures(solver, problems, encoded, rows, self.reading)}}
