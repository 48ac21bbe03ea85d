"""What all parts of a thoughts report work on: a run's model, its problems, and the stores of its thoughts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from torch import Tensor

from latent_lab import checkpoint
from latent_lab.config import EvalConfig
from latent_lab.grading.session import CHECKPOINT, Session, solver_of, trained_config
from latent_lab.grading.task import Answers
from latent_lab.problems import Problem, fingerprint
from latent_lab.problems.arithmetic import addition, sum_asked
from latent_lab.report.thoughts_task import ThoughtsTask
from latent_lab.sequences import Encoded
from latent_lab.thoughts.grammar import Grammar, grammar_of
from latent_lab.thoughts.probe_targets import key_of
from latent_lab.thoughts.probes import Probes, fit_probes
from latent_lab.thoughts.store import ThoughtStore, collect

STORES = "stores"


class Unreadable(ValueError):
    """A run whose thoughts cannot be read; the message says why and what can."""


@dataclass
class Reading:
    """All that the parts of the report work on."""

    task: ThoughtsTask
    at: Session
    oracle_folder: Path | None

    @property
    def config(self) -> EvalConfig:
        """The evaluation's settings."""
        return self.at.config

    @property
    def problems(self) -> list[Problem]:
        """The problems that are read."""
        return self.at.problems

    @cached_property
    def encoded(self) -> list[Encoded]:
        """The same as token ids."""
        return self.encode(self.problems)

    def encode(self, problems: Sequence[Problem]) -> list[Encoded]:
        """Problems as the run's stage has them tokenised."""
        found: list[Encoded] = self.at.trained.stage.encode(problems, self.at.solver.backbone.tokenizer)
        return found

    @cached_property
    def sums(self) -> list[Problem]:
        """The problems, where all are sums of two equally long numbers; else none."""
        is_sums = all(sum_asked(problem.question) for problem in self.problems)
        return self.problems if is_sums and self.grammar.name == "addition" else []

    @cached_property
    def fitting(self) -> list[Problem]:
        """Problems of the run's training split that readers are fitted on; none of them is among those that are read."""
        read = {key_of(problem) for problem in self.problems}
        known: list[Problem] = self.at.trained.dataset.load("train")
        return [problem for problem in known if key_of(problem) not in read][: self.task.train_size]

    @cached_property
    def grammar(self) -> Grammar:
        """How steps are read, found from the run's training problems."""
        return grammar_of(self.at.trained.dataset.load("train"))

    @cached_property
    def per_step(self) -> int:
        """Slots that stand for one step."""
        return int(getattr(self.at.trained.stage, "latents_per_step", 1))

    def slot_of_step(self, step: int) -> int:
        """The last slot that stands for a step, both counted from 0."""
        return step * self.per_step + self.per_step - 1

    @cached_property
    def layers(self) -> list[int | float]:
        """Layers that are stored: the thoughts themselves, and those asked for or all."""
        asked_for = self.task.wanted_layers or list(range(self.at.solver.reasoner.model.config.num_hidden_layers + 1))
        return [0, *(layer for layer in asked_for if layer != 0)]

    @property
    def folder(self) -> Path:
        """Where the stores lie."""
        return self.at.run.folder / STORES

    def store(self, name: str, problems: list[Problem]) -> ThoughtStore:
        """The thoughts of problems, collected below the folder of results; found there if they were collected before."""
        identity = {
            "weights": checkpoint.weights_hash(self.config.run_folder / CHECKPOINT),
            "split": fingerprint(problems),
        }
        encoded = self.encode(problems)
        return collect(
            self.folder / name, self.at.solver, problems, encoded, layers=self.layers, dtype=self.task.dtype, identity=identity
        )

    @cached_property
    def train(self) -> ThoughtStore:
        """Thoughts that readers are fitted on."""
        return self.store("train", self.fitting)

    @cached_property
    def test(self) -> ThoughtStore:
        """Thoughts that are read."""
        return self.store("test", self.problems)

    @cached_property
    def slots_to_steps(self) -> list[int | None]:
        """The step each slot stands for; None for slots past the longest training chain."""
        most = max((len(row["steps"]) for row in self.train.rows), default=0)
        steps = [slot // self.per_step for slot in range(self.train.layer(self.train.layers[0]).shape[1])]
        return [step if step < most else None for step in steps]

    @cached_property
    def fitted(self) -> Probes:
        """Linear probes of the thoughts themselves."""
        return fit_probes(self.train, self.grammar, 0, seed=self.config.seed, slots_to_steps=self.slots_to_steps)

    @cached_property
    def start(self) -> Tensor:
        """``[problems, width]``: the state at the start marker, which is the first thought."""
        first: Tensor = self.test.layer(0)[:, 0]
        return first

    @cached_property
    def other(self) -> ThoughtStore | None:
        """What the run of another seed thinks about the same problems; None where no such run was named."""
        named = self.task.other_run
        if named is None:
            return None
        folder = self.config.folder(named)
        solver, _, _ = solver_of(folder, trained_config(folder), self.at.accelerator, self.config.batch_size, Answers())
        if solver.reasoner.model.config.hidden_size != self.at.solver.reasoner.model.config.hidden_size:
            raise Unreadable(
                f"task.other_run: the thoughts of {named} have another width; allowed: the same run with another seed"
            )
        encoded = trained_config(folder).stage.encode(self.problems, solver.backbone.tokenizer)
        made = self.folder / "other"
        return collect(made, solver, self.problems, encoded, layers=self.layers, dtype=self.task.dtype)

    @property
    def kind(self) -> str:
        """``supervised`` where a reader of thoughts was part of the loss, else ``emergent``."""
        return "supervised" if self.at.trained.stage.step_supervision()[0] else "emergent"


def with_steps(problem: Problem) -> Problem:
    """A sum that came without its steps, with them; any other problem as it is."""
    meta = sum_asked(problem.question)
    if problem.steps or not meta:
        return problem
    return replace(addition(problem.id, meta["a"], meta["b"]), question=problem.question, answer=problem.answer)
