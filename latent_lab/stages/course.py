"""How a curriculum is trained: its data, its order, its validation, and the run around it."""

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from latent_lab import checkpoint
from latent_lab.backbone import Backbone, ModelError, Pretrained
from latent_lab.batching import Batch, bucketed, collate
from latent_lab.config import NOT_RESULT, TrainConfig
from latent_lab.engine import STATE, Engine, Phase
from latent_lab.files import remove
from latent_lab.grading.evaluate import Solver, floors, grade, in_words, rate, summary, teacher_forced
from latent_lab.job import Job
from latent_lab.overrides import options
from latent_lab.problems import DataError, Problem
from latent_lab.reasoner import LatentReasoner
from latent_lab.run import Run, accelerator, open_run_together, seed_everything
from latent_lab.sequences import Encoded, encode
from latent_lab.stages.curriculum import Curriculum
from latent_lab.supervision import StepDecoder, SupervisedReasoner, step_decoder

log = logging.getLogger(__name__)

ROOM = 16
"""Tokens an answer may be longer than the longest training target before it is cut off."""


class CurriculumCourse:
    """A curriculum's training problems laid out stage by stage, and its validation by free-running answers."""

    def __init__(
        self, config: TrainConfig, accelerator: Accelerator, backbone: Backbone, train: list[Problem], valid: list[Problem]
    ) -> None:
        self.stage: Curriculum = config.stage
        self.config, self.accelerator, self.backbone = config, accelerator, backbone
        self.train, self.valid = encode(train, backbone.tokenizer), encode(valid, backbone.tokenizer)
        self.valid_problems = valid
        self.majority = checkpoint.most_frequent([p.answer for p in train])
        self.reasoner = LatentReasoner(backbone.model, backbone.tokens)
        self.decoder: StepDecoder | None = None
        epochs = [*self.stage.epochs, *[self.stage.epochs[-1]] * len(self.stage.stages)]
        self.phases: Sequence[Phase] = [Phase(k, epochs[i], self.stage.reset_optimizer) for i, k in enumerate(self.stage.stages)]
        self._check_lengths()

    @cached_property
    def longest_step(self) -> int:
        """Tokens of the longest step."""
        return max((len(step) for p in self.train for step in p.steps), default=1)

    def num_batches(self, phase: Phase) -> int:
        """Optimiser steps in an epoch."""
        return -(-len(self.train) // self.config.batch_size)

    def batches(self, phase: Phase, epoch: int) -> list[list[int]]:
        """Problems of like shape go together; the order depends on (seed, stage, epoch) alone."""
        shapes = [self.stage.shape(p, self._stage_of(p, phase, epoch)) for p in self.train]
        return bucketed(shapes, self.config.batch_size, f"{self.config.seed}/{phase.stage}/{epoch}")

    def collate(self, phase: Phase, epoch: int, numbers: Sequence[int]) -> Batch:
        """Lay problems out at the phase's stage (or the one drawn for them, with mixing)."""
        problems = [self.train[i] for i in numbers]
        tokens = self.backbone.tokens
        sequences = [self.stage.sequence(p, tokens, self._stage_of(p, phase, epoch)) for p in problems]
        return collate(sequences, self.backbone.pad)

    def validate(self, phase: Phase) -> dict[str, Any]:
        """Free-running accuracy on the validation split at the phase's stage."""
        replies = self.solver(phase.stage).replies(self.valid)
        score = rate([grade(p, r) for p, r in zip(self.valid_problems, replies, strict=True)])
        return {
            f"valid/{name}": score[key] for name, key in (("accuracy", "value"), ("n", "n"), ("low", "low"), ("high", "high"))
        }

    def save(self, folder: Path, phase: Phase) -> None:
        """Write the model as it is."""
        checkpoint.save(folder, self.backbone, self.info(phase.stage), self.decoder)

    def info(self, stage: int) -> checkpoint.Info:
        """What a checkpoint of a stage must remember."""
        kind, longest = (self.stage.decoder, self.decoder.longest) if self.decoder else (None, 0)
        return checkpoint.Info(stage, self.stage.num_slots(stage), self.max_new_tokens(stage), self.majority, kind, longest)

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
        )

    def max_new_tokens(self, stage: int) -> int:
        """Longest training target at a stage, and some room."""
        longest = 0
        for p in self.train:
            before, _, after = self.stage.parts(p, stage)
            longest = max(longest, sum(len(p.steps[i]) for part in (before, after) for i in part) + len(p.answer))
        return longest + ROOM

    def _stage_of(self, problem: Encoded, phase: Phase, epoch: int) -> int:
        return self.stage.stage_of(phase.stage, self.config.seed, epoch, problem)

    def _check_lengths(self) -> None:
        room = getattr(self.backbone.model.config, "max_position_embeddings", None) or 10**9
        for phase in self.phases:
            for p in self.train:
                length = sum(self.stage.shape(p, phase.stage)) + 2
                if length > room:
                    raise ModelError(
                        f"problem {p.id} is {length} tokens long at stage {phase.stage}; the model has positions for {room}: "
                        "take a model with more (model.positions for model=nano), or leave the problem out"
                    )


def train(job: Job) -> dict[str, Any]:
    """Train the run a job asks for (first the stage before it, if its weights are needed) and return its result."""
    config: TrainConfig = job.config
    start = Path(config.init_from) if config.init_from else before(job)
    if config.threads:
        torch.set_num_threads(config.threads)
    folder = Path(config.outputs) / job.slug
    options = {"command": job.command, "ignore": NOT_RESULT, "overwrite": config.overwrite}
    with accelerator(config.device, config.precision) as at, open_run_together(at, folder, job.plain, **options) as run:
        if run.result is not None:
            log.info("%s is complete; its stored result is used (overwrite=true does it again)", run.folder)
            return run.result
        run.track(config.tracker, job_type="train", group=job.group)
        result = work(config, at, run, start)
        at.wait_for_everyone()
        run.finish(result)
        if at.is_main_process:  # only now: killed while it was being graded, the run must not train again
            remove(run.folder / STATE)
        at.wait_for_everyone()
    log.info("%s: %s", run.folder, in_words(result))
    return result


def before(job: Job) -> Path | None:
    """Checkpoint of the stage before, trained now if it is not there; None for a run that starts at stage 0."""
    number = job.config.stage.stages[0] - 1
    if number < 0:
        return None
    earlier = job.sibling(stage=str(number)) if str(number) in options("stage") else None
    if earlier is None or earlier.config.stage.stages != [number]:  # the stages were given as a list
        earlier = job.sibling(**{"stage.stages": f"[{number}]"})
    train(earlier)
    return Path(earlier.config.outputs) / earlier.slug / "checkpoint"


def work(config: TrainConfig, at: Accelerator, run: Run, start: Path | None) -> dict[str, Any]:
    """Load, train, and grade the best weights on the validation split, beside the floors."""
    seed_everything(config.seed)
    problems, valid = load(config, "train"), load(config, "valid")
    if start:
        backbone = Pretrained(path=str(start), dtype=getattr(config.model, "dtype", "float32")).load()
    else:
        backbone = config.model.load(problems)
    course = CurriculumCourse(config, at, backbone, problems, valid)
    if config.stage.supervision:
        model = backbone.model.config
        course.decoder = step_decoder(config.stage.decoder, model.hidden_size, model.vocab_size, course.longest_step)
        if start and (start / checkpoint.DECODER).exists():
            earlier = checkpoint.load(start)[2]
            if isinstance(earlier, type(course.decoder)) and earlier.longest >= course.longest_step:
                course.decoder = earlier
    learner = SupervisedReasoner(course.reasoner, course.decoder, config.stage.supervision)
    ended = Engine(at, run, config, learner, course).fit()

    best, info, _ = checkpoint.load(run.folder / "checkpoint")
    backbone.model.load_state_dict(best.model.state_dict())
    solver = course.solver(info.stage)
    rows = [grade(p, r) for p, r in zip(valid, solver.replies(course.valid), strict=True)]
    run.samples(rows)
    return {
        "split": "valid",
        **summary(rows),
        "floors": floors(solver, course.valid, valid, info.majority),
        "teacher_forced_exact": teacher_forced(
            solver, [config.stage.sequence(p, backbone.tokens, info.stage) for p in course.valid]
        ),
        "seed": config.seed,
        "stages": config.stage.stages,
        "steps": ended.step,
        "best_step": ended.best_step,
        "parameters": backbone.model.num_parameters(),
        "train_problems": len(problems),
        "seconds": round(ended.seconds, 1),
    }


def load(config: TrainConfig, split: Any) -> list[Problem]:
    """One split, cut to the limits."""
    problems = config.dataset.load(split)
    limits = [n for n in (config.limit, {"train": config.train_limit, "valid": config.valid_limit}[split]) if n is not None]
    problems = problems[: min(limits)] if limits else problems
    if not problems:
        raise DataError(f"the {split} split of the dataset is empty; it takes at least one problem")
    return problems
