"""``task=answers``: let a trained run answer a split by itself, and grade every answer beside its floors."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from latent_lab.grading.answers import Equivalence, Grading

if TYPE_CHECKING:
    from latent_lab.job import Job

SETTINGS = {"rule": "equivalence", "absolute": "tolerance", "relative": "relative_tolerance", "scale": "tolerance_scale"}
"""Fields of :class:`Equivalence` that are set here by another name."""
THOUGHTS = ("as_trained", "fixed", "model", "gold_chain_leak")


@dataclass
class Answers:
    """Free-running greedy answers, which must stop by themselves, on one split of a dataset."""

    takes_judge: ClassVar[bool] = True

    num_slots: int | None = None
    """Latent slots of every prompt; null takes as many as the run was trained with at its last stage."""
    thoughts: str = "as_trained"
    """What decides how many slots a prompt has: ``fixed`` (``num_slots``); the ``model``, which thinks until it says enough (for
    runs with ``stage.train_stop``); ``as_trained``: the second where that was trained, else the first. ``gold_chain_leak``: as
    many as the gold chain would fill. The published evaluation does this, which tells the model how long the chain is; it is
    here to be compared with, and must be asked for by this name."""
    shots: int | None = None
    """Solved training problems shown before each question (runs of ``stage=planning``); null: as many as in training."""
    shots_by: str | None = None
    """Which ones: ``random``, or those with the most ``similar`` questions; null: as in training."""
    max_new_tokens: int | None = None
    """Longest answer in tokens; null takes the longest training target and some room."""
    floors: bool = True
    """Also score the majority answer and the same model with its thoughts removed or replaced."""
    extractors: list[str] = field(default_factory=list)
    """Rules that find the answer in what was written, in the order they are tried: ``marker`` (``###``), ``hashes`` (``####``),
    ``boxed``, ``the_answer_is``, ``last_number`` (a guess), ``node``; empty takes those the run was trained for."""
    equivalence: str | None = None
    """What equals the gold answer: ``exact``, ``integer``, ``numeric``, ``math`` (needs the extra ``math``), the published
    ``published_in_run`` and ``published_post_hoc``, ``choice`` (letters of options), or ``yes_no``; null takes what the dataset's
    answers are, or ``exact``. See :class:`latent_lab.grading.answers.Equivalence`."""
    tolerance: float = 0.0
    """For ``numeric``: largest difference from the gold number."""
    relative_tolerance: float = 0.0
    """For ``numeric``: the same as a share of the gold number; the larger of the two counts."""
    tolerance_scale: float | None = None
    """For ``numeric``: the most that ``tolerance`` may be, as a share of the gold number; null: no such limit."""
    percent: bool = False
    """For ``integer`` and ``numeric``: 50% is 0.5; else 50."""
    accept_truncated: bool = False
    """Also look for an answer in what was cut off at ``max_new_tokens``; else that is unscored."""

    def __post_init__(self) -> None:
        if self.thoughts not in THOUGHTS:
            raise ValueError(f"thoughts={self.thoughts}: allowed are {', '.join(THOUGHTS)}")
        if self.num_slots is not None and self.num_slots < 0:
            raise ValueError(f"num_slots={self.num_slots}: allowed are 0 and more")
        if self.num_slots is not None and self.thoughts == "gold_chain_leak":
            raise ValueError(f"num_slots={self.num_slots}: thoughts={self.thoughts} decides the number; leave one of them out")
        if self.shots is not None and self.shots < 0:
            raise ValueError(f"shots={self.shots}: allowed are 0 and more, or null")
        if self.shots_by not in (None, "random", "similar"):
            raise ValueError(f"shots_by={self.shots_by}: allowed are random, similar, or null")
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={self.max_new_tokens}: allowed are 1 and more")
        try:
            self.grading(self.extractors)
        except ValueError as error:
            name, equals, rest = str(error).partition("=")
            raise ValueError(SETTINGS.get(name, name) + equals + rest) from error

    def grading(self, extractors: Sequence[str], rule: str = "exact") -> Grading:
        """How texts are graded; ``extractors`` are tried and ``rule`` holds where the task names none."""
        equal = Equivalence(self.equivalence or rule, self.tolerance, self.relative_tolerance, self.tolerance_scale, self.percent)
        return Grading(tuple(self.extractors or extractors), equal, self.accept_truncated)

    def run(self, job: "Job") -> dict[str, Any]:
        """Grade, write ``samples.jsonl`` and then ``result.json`` into ``out``, and return the result."""
        from latent_lab.grading.session import answers

        return answers(self, job)
