"""How a stage is trained: its data, its order, its validation, and the run around it."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from latent_lab import checkpoint
from latent_lab.adapters import wrap
from latent_lab.backbone import Backbone, ModelError, continued
from latent_lab.batching import Batch, bucketed, collate
from latent_lab.card import model_card
from latent_lab.compiling import compile_columns
from latent_lab.config import NOT_RESULT, TrainConfig
from latent_lab.engine import STATE, Engine
from latent_lab.files import atomic, remove
from latent_lab.grading.answers import Equivalence, Grading
from latent_lab.grading.evaluate import Solver, floors, in_words, rate, summary, teacher_forced
from latent_lab.grading.options import of_options, options_of
from latent_lab.grading.process import processes
from latent_lab.grading.session import check_room, show_examples
from latent_lab.job import Job
from latent_lab.problems import Problem, rule_of
from latent_lab.problems.checks import check_problems
from latent_lab.reasoner import LatentReasoner
from latent_lab.run import Run, accelerator, open_run_together, say_complete, seed_everything
from latent_lab.schedule import Phase
from latent_lab.sequences import Encoded
from latent_lab.stages.base import Stage
from latent_lab.supervision import StepDecoder, SupervisedReasoner, step_decoder

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint"
ROOM = 16
"""Tokens an answer may be longer than the longest training target before it is cut off."""


class StageCourse:
    """A recipe's training problems laid out phase by phase, and its validation by free-running answers."""

    def __init__(
        self, config: TrainConfig, accelerator: Accelerator, backbone: Backbone, train: list[Problem], valid: list[Problem]
    ) -> None:
        self.stage: Stage = config.stage
        self.config, self.accelerator, self.backbone = config, accelerator, backbone
        self.train, self.valid = (self.stage.encode(problems, backbone.tokenizer) for problems in (train, valid))
        check_room([*self.train, *self.valid], self.stage, backbone)
        self.valid_problems = valid
        self.majority = checkpoint.most_frequent([p.answer for p in train])
        self.reasoner = LatentReasoner(backbone.model, backbone.tokens, self.stage.loop())
        if config.compile:
            compile_columns(self.reasoner.model)
        self.decoder: StepDecoder | None = None
        self.phases: Sequence[Phase] = self.stage.phases()
        self._check_lengths()

    @cached_property
    def longest_step(self) -> int:
        """Tokens of the longest step."""
        return max((len(step) for p in self.train for step in p.steps), default=1)

    @cached_property
    def representatives(self) -> list[Encoded]:
        """The first training problem of each combination of lengths, on which alone shapes depend where nothing is drawn."""
        first: dict[Any, Encoded] = {}
        for p in self.train:
            first.setdefault(p.lengths, p)
        return list(first.values())

    def num_batches(self, phase: Phase) -> int:
        """Optimiser steps in an epoch."""
        return -(-len(self.train) // self.config.batch_size)

    def batches(self, phase: Phase, epoch: int) -> list[list[int]]:
        """Problems of like shape (or length) go together; the order depends on (seed, stage, epoch) alone."""
        shapes: list[tuple[int, ...]] = [self.stage.shape(p, phase.stage, self._draw(epoch)) for p in self.train]
        if self.config.batch_by == "length":
            shapes = [(sum(shape),) for shape in shapes]
        return bucketed(shapes, self.config.batch_size, f"{self.config.seed}/{phase.stage}/{epoch}")

    def collate(self, phase: Phase, epoch: int, numbers: Sequence[int]) -> Batch:
        """Lay problems out at the phase's stage; what is left to chance depends on (seed, epoch, id) alone."""
        problems = [self.train[i] for i in numbers]
        tokens, pad = self.backbone.tokens, self.backbone.pad
        sequences = [self.stage.sequence(p, tokens, phase.stage, self._draw(epoch)) for p in problems]
        teachers = [taught for p in problems if (taught := self.stage.teacher_sequence(p))]
        batch = collate(sequences, pad, with_anchors=bool(teachers), with_roles=bool(self.stage.role_weights()))
        batch.teacher = collate(teachers, pad, with_anchors=True) if teachers else None
        return batch

    def validate(self, phase: Phase) -> dict[str, Any]:
        """Free-running accuracy on the validation split at the phase's stage."""
        score = rate(self.solver(phase.stage).graded(self.valid_problems, self.valid))
        return {
            f"valid/{name}": score[key] for name, key in (("accuracy", "value"), ("n", "n"), ("low", "low"), ("high", "high"))
        }

    def save(self, folder: Path, phase: Phase) -> None:
        """Write the model as it is."""
        checkpoint.save(folder, self.backbone, self.info(phase.stage), self.decoder, self.reasoner.feedback)
        self.stage.save(folder)

    def inspect(self, learner: SupervisedReasoner) -> None:
        """Let the stage check what is about to be trained, on two problems."""
        first = self.stage.sequence(self.train[0], self.backbone.tokens, self.phases[0].stage)
        self.stage.inspect(learner, self.collate(self.phases[0], 0, range(min(2, len(self.train)))), self.backbone, first)

    def info(self, stage: int) -> checkpoint.Info:
        """What a checkpoint of a stage must remember."""
        kind, longest = (self.stage.step_supervision()[1], self.decoder.longest) if self.decoder else (None, 0)
        slots, loop = self.stage.num_slots(stage), asdict(self.stage.loop())
        return checkpoint.Info(stage, slots, self.max_new_tokens(stage), self.majority, kind, longest, loop)

    def solver(self, stage: int) -> Solver:
        """The model as it is, ready to answer at a stage."""
        at = self.accelerator
        return Solver(
            reasoner=self.reasoner.eval(),
            backbone=self.backbone,
            layout=self.stage,
            stage=stage,
            num_slots=self.stage.num_slots(stage),
            max_new_tokens=self.max_new_tokens(stage),
            batch_size=self.config.eval_batch_size,
            rank=at.process_index,
            world=at.num_processes,
            thoughts_by=self.stage.thoughts_by,
            grading=Grading(self.stage.extractors, Equivalence(rule_of(self.config.dataset))),
        )

    def max_new_tokens(self, stage: int) -> int:
        """Longest training target at a stage, and some room."""
        shapes = [(self.stage.shape(p, stage), len(p.question)) for p in self.representatives]
        return max(before - question + after for (_, before, after), question in shapes) + ROOM

    def _draw(self, epoch: int) -> str:
        return f"{self.config.seed}/{epoch}"

    def _check_lengths(self) -> None:
        room = self.backbone.room
        for stage in sorted({phase.stage for phase in self.phases if phase.is_validated} | {self.phases[0].stage}):
            for p in self.representatives:
                length = sum(self.stage.shape(p, stage)) + self.stage.gap(stage) + 2
                if length > room:
                    raise ModelError(
                        f"problem {p.id} is {length} tokens long at stage {stage}; the model has positions for {room}: "
                        "take a model with more (model.positions for model=nano), or leave the problem out"
                        f"{', or show fewer examples (stage.shots)' if getattr(self.stage, 'shots', 0) else ''}"
                    )


def train(job: Job) -> dict[str, Any]:
    """Train the run a job asks for (first the stage before it, if its weights are needed) and return its result."""
    config: TrainConfig = job.config
    start = Path(config.init_from) if config.init_from else None
    check(config, config.problems("train"))  # before any earlier stage is trained for nothing
    has_weights = getattr(config.model, "state", None) is not None
    earlier = job.first or (config.stage.before(job) if start is None and not has_weights else None)
    if earlier:
        train(earlier)
        start = Path(earlier.config.outputs) / earlier.slug / CHECKPOINT
    if read := config.stage.reads(job):
        train(read)
    if config.threads:
        torch.set_num_threads(config.threads)
    folder = Path(config.outputs) / job.slug
    options = {"command": job.command, "ignore": NOT_RESULT, "overwrite": config.overwrite}
    with accelerator(config.device, config.precision) as at, open_run_together(at, folder, job.plain, **options) as run:
        if run.result is not None:
            say_complete(run.folder)
            return run.result
        run.track(config.tracker, job_type="train", group=job.group)
        result = work(config, at, run, start)
        if at.is_main_process:
            with atomic(run.folder / CHECKPOINT / "README.md") as temporary:
                slots = config.stage.num_slots(config.stage.phases()[-1].stage) if config.stage.has_slots else None
                card = model_card(run.folder.name, run.config, slots, result)
                temporary.write_text(card, encoding="utf-8")
        at.wait_for_everyone()
        run.finish(result)
        if at.is_main_process:  # only now: killed while it was being graded, the run must not train again
            remove(run.folder / STATE)
        at.wait_for_everyone()
    log.info("%s: %s", run.folder, in_words(result))
    return result


def work(config: TrainConfig, at: Accelerator, run: Run, start: Path | None) -> dict[str, Any]:
    """Load, train, and grade the best weights on the validation split, beside the floors."""
    seed_everything(config.seed)
    problems, valid = config.problems("train"), config.problems("valid")
    backbone = continued(config.model, start) if start else config.model.load(problems)
    config.stage.prepare(backbone, problems, Path(config.outputs))
    backbone = wrap(backbone, config.peft, start)
    show_examples(config, None, None, problems)
    course = StageCourse(config, at, backbone, problems, valid)
    weight, kind = config.stage.step_supervision()
    if weight:
        model = backbone.model.config
        course.decoder = step_decoder(kind, model.hidden_size, model.vocab_size, course.longest_step)
        if start and (start / checkpoint.DECODER).exists():
            earlier = checkpoint.load(start)[2]
            if isinstance(earlier, type(course.decoder)) and earlier.longest >= course.longest_step:
                course.decoder = earlier
    if start and (start / checkpoint.FEEDBACK).exists():
        checkpoint.load_feedback(start, course.reasoner)
    learner = SupervisedReasoner(
        course.reasoner, course.decoder, weight, config.stage.distillation(), config.stage.role_weights()
    )
    engine = Engine(at, run, config, learner, course)
    course.inspect(learner)
    ended = engine.fit()

    best, info, _ = checkpoint.load(run.folder / CHECKPOINT)
    course.backbone, course.reasoner = best, checkpoint.thinking(run.folder / CHECKPOINT, best, info).to(at.device)
    solver = course.solver(info.stage)
    options = options_of(config.dataset, config.stage, valid, best.tokenizer)
    rows = replace(solver, options=options).graded(valid, course.valid)
    measured = config.stage.measures(solver, valid, course.valid, rows)  # before rows are written: it notes something in them
    chosen, process = of_options(options, rows), processes(config.dataset, config.stage, info.stage, valid, rows)
    run.samples(rows)
    return {
        "split": "valid",
        **summary(rows),
        **chosen,
        **process,
        **measured,
        "floors": floors(solver, course.valid, valid, info.majority),
        "teacher_forced_exact": teacher_forced(solver, [config.stage.sequence(p, best.tokens, info.stage) for p in course.valid]),
        "seed": config.seed,
        "stages": [phase.stage for phase in course.phases if phase.is_validated],
        "steps": ended.step,
        "best_step": ended.best_step,
        "parameters": backbone.model.num_parameters(),
        "train_problems": len(problems),
        "seconds": round(ended.seconds, 1),
    }


def check(config: TrainConfig, problems: list[Problem]) -> None:
    """Raise :class:`DataError` for a training split that the stage cannot learn from, naming the row."""
    stage, dataset = config.stage, config.dataset
    check_problems(problems, needs_steps=stage.needs_steps and not getattr(dataset, "may_lack_steps", False))
    if stage.chain_needed:  # in the whole split: a limit must not decide which stages there are
        number, spare = stage.chain_needed
        check_problems(dataset.load("train"), stage=number, spare=spare)
