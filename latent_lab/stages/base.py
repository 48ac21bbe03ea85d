"""What every ``stage=`` option is: a recipe that lays problems out while a model learns, phase by phase. Imports no torch."""

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latent_lab.loop import SEEN, Loop, check_loop, loop_of
from latent_lab.problems import Problem
from latent_lab.schedule import Phase
from latent_lab.sequences import TEMPLATES, Encoded, Frame, LatentTokens, Sequence, Tokenizer, encode, frame

if TYPE_CHECKING:
    from latent_lab.backbone import Backbone
    from latent_lab.batching import Batch
    from latent_lab.grading.evaluate import Solver
    from latent_lab.job import Job
    from latent_lab.sequences import Role
    from latent_lab.supervision import Distillation, SupervisedReasoner

log = logging.getLogger(__name__)

DECODERS = ("autoregressive", "linear")
RESETS = ("never", "stage", "every_epoch_as_published")


@dataclass
class Stage(ABC):
    """A recipe. Past what is abstract here, a method only overrides where it differs."""

    epochs: list[float] = field(default_factory=lambda: [3.0])
    """Passes over the training split for each phase, fractions allowed; the last number holds for the rest."""
    reset_optimizer: str = "never"
    """When the optimiser forgets: ``never``; at each ``stage``; ``every_epoch_as_published``, which Coconut's code does where its
    paper says at each stage."""
    template: str = "plain"
    """How a question is put: ``plain``, a line of its own; ``alpaca``, under the headings of Alpaca's instructions; ``chat``, as
    the tokenizer's own chat template has it, the reply being the assistant's turn. What is put is never learned."""
    instruction: str = ""
    """What is asked of the model in general: Alpaca's instruction, with the question as its input (empty: the question itself is
    the instruction); the system message of a chat (empty: there is none)."""

    def __post_init__(self) -> None:
        if not self.epochs or not all(0 <= count < float("inf") for count in self.epochs):
            raise ValueError(f"epochs={self.epochs}: give one or more numbers, 0 and up")
        if not any(self.epochs):
            raise ValueError(f"epochs={self.epochs}: at least one must be above 0, or nothing is trained")
        one_of(self, "reset_optimizer", RESETS)
        one_of(self, "template", TEMPLATES)
        if self.instruction and self.template == "plain":
            raise ValueError(f"instruction={self.instruction}: template=plain has no place for it; allowed: alpaca, chat")

    @abstractmethod
    def phases(self) -> list[Phase]:
        """The stretches of training, in order."""

    @abstractmethod
    def sequence(self, problem: Encoded, tokens: LatentTokens, stage: int, draw: str | None = None) -> Sequence:
        """Lay a problem out for training. ``draw`` names what is left to chance (seed and epoch), None leaves nothing to it."""

    @abstractmethod
    def shape(self, problem: Encoded, stage: int, draw: str | None = None) -> tuple[int, int, int]:
        """Slots, tokens before them and tokens after them: what decides how well problems fit into one batch.

        Without ``draw`` it depends on the problem's ``lengths`` alone.
        """

    @abstractmethod
    def prompt(self, problem: Encoded, tokens: LatentTokens, stage: int, num_slots: int | None = None) -> Sequence:
        """Lay a problem out for free-running evaluation, nothing of the gold chain; default: as many slots as the stage has."""

    @property
    def extractors(self) -> tuple[str, ...]:
        """Names of the rules that find the answer in what is written, in the order they are tried."""
        return ("marker",)

    @property
    def has_slots(self) -> bool:
        """Whether problems are laid out with markers and latent slots."""
        return False

    @property
    def matches_layers(self) -> bool:
        """Whether its loss compares the states of all layers."""
        return False

    @property
    def needs_steps(self) -> bool:
        """Whether a problem without written steps cannot be laid out as meant."""
        return True

    @property
    def chain_needed(self) -> tuple[int, int] | None:
        """A stage that only makes sense where some training problem has as many steps, or so many fewer; None: any will do."""
        return None

    @property
    def thoughts_by(self) -> str:
        """What decides how many slots a prompt has: ``fixed``, or the ``model``."""
        return "fixed"

    def num_slots(self, stage: int) -> int:
        """Latent slots of an evaluation prompt at a stage: a fixed number that never depends on the gold chain."""
        return 0

    def gap(self, stage: int) -> int:
        """Positions that a prompt leaves free before the last token of its question."""
        return 0

    def num_slots_for(self, chain: int, stage: int) -> int:
        """Slots that a chain of so many steps would fill: what the published evaluation gives away."""
        return min(self.num_slots(stage), self.num_slots(chain))

    def slots_when_said(self, stage: int) -> int:
        """Slots that follow wherever the model itself writes ``<|latent|>``; 0: prompts have their slots from the start."""
        return 0

    def loop(self) -> Loop:
        """How slots are filled."""
        return loop_of(self)

    def writes_first(self) -> bool:
        """Whether steps are written before thinking, so that the model itself says when it begins."""
        return False

    def encode(self, problems: Seq[Problem], tokenizer: Tokenizer) -> list[Encoded]:
        """Tokenise problems, or raise :class:`latent_lab.problems.DataError`."""
        return encode(problems, tokenizer, around=self.around(tokenizer))

    def around(self, tokenizer: Tokenizer) -> Frame:
        """What stands around a question, or :class:`latent_lab.weights.ModelError` where a tokenizer cannot put it so."""
        return frame(self.template, self.instruction, tokenizer)

    def teacher_sequence(self, problem: Encoded) -> Sequence | None:
        """The same problem with its chain written out, for methods that learn from it."""
        return None

    def step_supervision(self) -> tuple[float, str]:
        """Weight and kind of the auxiliary step decoder; weight 0: there is none."""
        return 0.0, "linear"

    def distillation(self) -> "Distillation | None":
        """Weights of the losses against the teacher, where there is one."""
        return None

    def role_weights(self) -> "dict[Role, float]":
        """What a token weighs in the loss by its role; empty: all the same."""
        return {}

    def prepare(self, backbone: "Backbone", problems: Seq[Problem], outputs: Path) -> None:
        """Learn from the training problems what layouts need, and give the backbone the tokens for it; by default nothing."""
        return

    def inspect(self, learner: "SupervisedReasoner", batch: "Batch", backbone: "Backbone", first: Sequence) -> None:
        """Check a learner on a small batch (``first`` is laid out in it) before it trains; by default nothing."""
        return

    def save(self, folder: Path) -> None:
        """Write what :meth:`prepare` learned into a checkpoint; by default nothing."""
        return

    def restore(self, folder: Path, outputs: Path) -> None:
        """Read what :meth:`save` wrote; by default nothing."""
        return

    def plain(self, ids: list[int]) -> list[int]:
        """What of a reply, in token ids, is graded; by default all of it."""
        return ids

    def columns(self, problem: Encoded, ids: list[int]) -> dict[str, Any]:
        """What is noted of a reply, in token ids, beside its grade; by default nothing."""
        return {}

    def measures(
        self, solver: "Solver", problems: Seq[Problem], encoded: Seq[Encoded], rows: Seq[dict[str, Any]]
    ) -> dict[str, Any]:
        """What a result says of graded ``rows`` besides accuracy; by default nothing."""
        return {}

    def before(self, job: "Job") -> "Job | None":
        """The job whose weights this one starts from; None: it starts from the backbone as it is."""
        return None

    def reads(self, job: "Job") -> "Job | None":
        """The job whose finished run :meth:`prepare` reads, trained first where it is missing; None: there is none."""
        return None

    def phase(self, stage: int, epochs: float, *, is_validated: bool = True) -> Phase:
        """One phase under this recipe's rule for the optimiser."""
        every = self.reset_optimizer == "every_epoch_as_published"
        return Phase(stage, epochs, self.reset_optimizer != "never", every, is_validated)

    def train(self, job: "Job") -> dict[str, Any]:
        """Train this run, and first the stage before it where its weights are needed; returns what ``result.json`` holds."""
        from latent_lab.config import NOT_RESULT
        from latent_lab.run import finished, say_complete

        folder = Path(job.config.outputs) / job.slug
        is_alone = os.environ.get("WORLD_SIZE", "1") == "1"  # several processes must not decide this one by one
        if is_alone and not job.config.overwrite and (result := finished(folder, job.plain, NOT_RESULT)):
            say_complete(folder)
            return result
        from latent_lab.stages.course import train  # only now: importing torch takes longer than all of the above

        return train(job)


@dataclass
class Thinking(Stage):
    """A recipe with latent slots: how they are filled, who sees them, and what else is asked of them."""

    feedback: str = "after_norm"
    """Where a thought is taken: the last layer's state ``after_norm`` (published) or ``before_norm``."""
    projection: str = "none"
    """What it passes through: ``none``; ``linear``, which starts as the identity; ``mlp``, as in CODI."""
    match_norm: bool = False
    """Scale each thought to the mean length of the input embeddings."""
    detach: bool = False
    """Cut the gradient from a slot into the state its thought was taken from (an ablation)."""
    rounds: int | None = None
    """Jacobi iterations: run all slots in parallel so many times; null: one after another (the same as one round a slot)."""
    answer_sees: str = "all"
    """What is written in the last stage may attend to ``all`` before it; to the slots of the ``thoughts`` only: a bottleneck; or
    to the ``vectors`` only: to each slot as its thought alone makes it, without what it has picked up from its neighbours."""
    train_stop: bool = False
    """Also train the model to say at each slot whether it has thought enough; it then decides their number by itself."""
    supervision: float = 0.0
    """Weight of the loss of an auxiliary decoder that must write step k's text from thought k (the idea of SIM-CoT)."""
    decoder: str = "autoregressive"
    """That decoder: ``autoregressive`` (a small language model, as published) or ``linear`` (cannot compute, only read)."""

    @property
    def has_slots(self) -> bool:
        """See :class:`Stage`."""
        return True

    @property
    def thoughts_by(self) -> str:
        """See :class:`Stage`."""
        return "model" if self.train_stop else "fixed"

    @property
    def alone(self) -> bool:
        """See :class:`latent_lab.loop.Loop`."""
        return self.answer_sees == "vectors"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_loop(self)
        one_of(self, "answer_sees", SEEN)
        one_of(self, "decoder", DECODERS)
        if self.supervision < 0:
            raise ValueError(f"supervision={self.supervision}: allowed are weights of 0 and more")

    def step_supervision(self) -> tuple[float, str]:
        """See :class:`Stage`."""
        return self.supervision, self.decoder


def one_of(stage: Stage, name: str, allowed: tuple[str, ...]) -> None:
    """Raise ValueError unless a setting is one of the values allowed."""
    value = getattr(stage, name)
    if value not in allowed:
        raise ValueError(f"{name}={value}: allowed are {', '.join(allowed)}")
