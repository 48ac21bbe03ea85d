"""One evaluation of a run: its folder, its model, its problems, and what ``task=answers`` does with them."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from latent_lab import checkpoint
from latent_lab.backbone import Backbone, ModelError
from latent_lab.compose import typed
from latent_lab.config import NOT_RESULT, ConfigError, EvalConfig, Nothing, TrainConfig
from latent_lab.grading import judge
from latent_lab.grading.evaluate import Solver, floors, in_words, summary, teacher_forced
from latent_lab.grading.judges import Asking
from latent_lab.grading.options import of_options, options_of
from latent_lab.grading.process import processes
from latent_lab.grading.task import Answers
from latent_lab.grading.tools import add_tools, with_tools
from latent_lab.job import Job
from latent_lab.problems import DataError, Problem, fingerprint, rule_of
from latent_lab.run import CONFIG, RESULT, Run, accelerator, open_run_together, say_complete, seed_everything
from latent_lab.sequences import Encoded
from latent_lab.supervision import StepDecoder

if TYPE_CHECKING:
    from accelerate import Accelerator

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint"
IDENTITY = frozenset({"problems", "weights", "judge_prompt", "label_prompts", "examples"})
"""Hashes in the config of an evaluation's folder, of what decides its result though no setting shows it."""


@dataclass
class Session:
    """An evaluation under way."""

    config: EvalConfig
    trained: TrainConfig
    """How the run was trained."""
    run: Run
    """The folder of results; complete when it has a ``result``, and then nothing is to be done."""
    problems: list[Problem]
    solver: Solver
    info: checkpoint.Info
    decoder: StepDecoder | None
    """What was trained to read steps from thoughts, if anything was."""
    accelerator: "Accelerator"

    def score(self, problems: list[Problem], *, with_floors: bool = True) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Let the model answer problems; return the result and a graded row for each problem."""
        solver = self.solver
        encoded = self.trained.stage.encode(problems, solver.backbone.tokenizer)
        check_room(encoded, self.trained.stage, solver.backbone)
        dataset = self.config.dataset or self.trained.dataset
        options = options_of(dataset, self.trained.stage, problems, solver.backbone.tokenizer)
        started = time.monotonic()
        rows = replace(solver, options=options).graded(problems, encoded, quiet=False)
        seconds = time.monotonic() - started
        gold = [self.trained.stage.sequence(p, solver.backbone.tokens, self.info.stage) for p in encoded]
        result = {
            **summary(rows),
            **of_options(options, rows),
            **processes(dataset, self.trained.stage, self.info.stage, problems, rows),
            **(self.trained.stage.measures(solver, problems, encoded, rows) if with_floors else {}),
            "floors": floors(solver, encoded, problems, self.info.majority) if with_floors else {},
            "teacher_forced_exact": teacher_forced(solver, gold),
            "chain_tokens": sum(len(step) for p in encoded for step in p.steps) / max(len(encoded), 1),
            "seen_in_training": seen(problems, self.trained),
            "slots": solver.num_slots if solver.thoughts_by == "fixed" else solver.thoughts_by,
            "stage": self.info.stage,
            "training_seed": self.trained.seed,
            "seconds": round(seconds, 3),
        }
        return result, rows

    def verdicts(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Have the wrong answers among graded rows judged: ``{"judge": ...}``, empty without a judge.

        The main process alone asks, and alone knows: a call is paid for once.
        """
        chosen = self.config.judge
        if isinstance(chosen, Nothing | None) or not self.run.is_main:
            return {}
        same = self.solver.rules.equivalence.same
        cases = judge.wrong_cases(rows)
        rules = [judge.by_rules(case, lambda given, gold: same(given, gold) is True) for case in cases]
        return {"judge": judge.judged(chosen, cases, rules, self.run.folder, self.solver.reasoner.device)}

    def helped(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Give the graded rows of ``problems`` a column for each tool of the job, and say what they amount to."""
        tools = self.config.tools
        if not tools:
            return {}
        add_tools(
            tools, rows, self.solver, self.problems, self.trained.stage.encode(self.problems, self.solver.backbone.tokenizer)
        )
        return with_tools(tools, rows, self.config.seed)


@contextmanager
def session(job: Job, task: Answers, more: Mapping[str, str] | None = None) -> Iterator[Session]:
    """Open the folder of results and load what the evaluation needs; on every process of a job.

    What decides the result is part of the folder's config, so that changed problems or weights never pass for the old ones;
    ``more`` is what decides it besides.
    """
    config: EvalConfig = job.config
    if config.threads:
        torch.set_num_threads(config.threads)
    trained = trained_config(config.run_folder)
    examples = show_examples(trained, task.shots, task.shots_by)
    with accelerator(config.device, config.precision) as at:
        problems = (config.dataset or trained.dataset).load(config.split)[: config.limit]
        if not problems:
            raise DataError(f"split={config.split}: the dataset has no problem there; choose another split or dataset")
        weights = checkpoint.weights_hash(config.run_folder / CHECKPOINT)
        identity = {"problems": fingerprint(problems), "weights": weights, **judge.identity(config.judge), **(more or {})}
        identity |= {"examples": fingerprint(examples)} if examples else {}
        folder = Path(config.out) if config.out else config.run_folder / "eval" / job.slug
        options = {"command": job.command, "ignore": NOT_RESULT, "overwrite": config.overwrite}
        with open_run_together(at, folder, {**job.plain, **identity}, **options) as run:
            if run.result is None and isinstance(config.judge, Asking):
                config.judge.check_ready()  # or the answers would wait for somebody who cannot be asked
            seed_everything(config.seed)
            solver, info, decoder = solver_of(config.run_folder, trained, at, config.batch_size, task, config.dataset)
            if run.result is None:
                run.track(config.tracker, job_type="eval", group=job.group)
            yield Session(config, trained, run, problems, solver, info, decoder, at)
            at.wait_for_everyone()


def solver_of(
    folder: Path, trained: TrainConfig, at: "Accelerator", batch_size: int, task: Answers, dataset: Any = None
) -> tuple[Solver, checkpoint.Info, StepDecoder | None]:
    """A finished run's model, ready to answer (``dataset``: whose answers, if not those it was trained on), and what was trained
    to read its thoughts."""
    show_examples(trained, task.shots, task.shots_by)
    backbone, info, decoder = checkpoint.load(folder / CHECKPOINT, getattr(trained.model, "dtype", "float32"))
    solver = Solver(
        reasoner=checkpoint.thinking(folder / CHECKPOINT, backbone, info).to(at.device).eval(),
        backbone=backbone,
        layout=trained.stage,
        stage=info.stage,
        num_slots=info.num_slots if task.num_slots is None else task.num_slots,
        max_new_tokens=task.max_new_tokens or info.max_new_tokens,
        batch_size=batch_size,
        rank=at.process_index,
        world=at.num_processes,
        thoughts_by=trained.stage.thoughts_by if task.thoughts == "as_trained" else task.thoughts,
        grading=task.grading(trained.stage.extractors, rule_of(dataset or trained.dataset)),
    )
    return solver, info, decoder.to(at.device) if decoder else None


def answers(task: Answers, job: Job) -> dict[str, Any]:
    """Do ``task=answers``: see :class:`latent_lab.grading.task.Answers`."""
    with session(job, task) as at:
        if at.run.result is None:
            result, rows = at.score(at.problems, with_floors=task.floors)
            result |= at.helped(rows)
            at.run.samples(rows)
            result |= at.verdicts(rows)
            at.run.finish({"task": "answers", "run": at.config.run, "split": at.config.split, **result})
        else:
            say_complete(at.run.folder)
    result = at.run.result or {}
    log.info("%s: %s", at.run.folder, in_words(result))
    if "judge" in result:
        log.info("%s: %s", at.run.folder, judge.in_words(result["judge"]))
    return result


def trained_config(run_folder: Path) -> TrainConfig:
    """The configuration a finished run was trained with, built again."""
    if not (run_folder / RESULT).exists() or not (run_folder / CHECKPOINT).is_dir():
        raise ModelError(
            f"run: {run_folder} is no finished training run (no {RESULT} or no {CHECKPOINT}/ in it): train it to its end first"
        )
    config: TrainConfig = typed(yaml.safe_load((run_folder / CONFIG).read_text(encoding="utf-8")))
    config.stage.restore(run_folder / CHECKPOINT, run_folder.parent)
    return config


def show_examples(trained: TrainConfig, shots: int | None, by: str | None, problems: Sequence[Problem] = ()) -> Sequence[Problem]:
    """Hand a stage that shows examples the training ``problems`` to draw them from, and return those.

    They are read where none are given. ``shots`` is how many examples and ``by`` how they are chosen, None: as in training.
    """
    stage = trained.stage
    if by is not None and not (getattr(stage, "shots", 0) if shots is None else shots):
        raise ConfigError("task.shots_by", by, "no examples are shown; allowed: null, or task.shots of 1 and more")
    if shots is not None and not hasattr(stage, "shots"):
        raise ConfigError("task.shots", shots, "this run's stage shows no examples; allowed: null, or runs of stage=planning")
    if shots is not None:
        stage.shots = shots
    if by is not None:
        stage.shots_by = by
    if not getattr(stage, "shots", 0):
        return ()
    if stage.examples is None:
        stage.show(problems or trained.problems("train"), trained.seed)
    pool: Sequence[Problem] = stage.examples.pool
    return pool


def check_room(encoded: Sequence[Encoded], stage: Any, backbone: Backbone) -> None:
    """Raise :class:`ModelError` for a problem whose examples leave it no position for an answer."""
    shots = getattr(stage, "shots", 0)
    for e in encoded if shots else ():
        if len(e.question) >= backbone.room:
            raise ModelError(
                f"problem {e.id}: with {shots} examples before it its prompt has {len(e.question)} tokens; the model has "
                f"positions for {backbone.room}; allowed: fewer examples (stage.shots, or task.shots in an evaluation)"
            )


def seen(problems: Sequence[Problem], trained: TrainConfig) -> int | None:
    """How many of the questions stand in the training split; None where that cannot be read any more."""
    try:
        known = {p.question for p in trained.dataset.load("train")}
    except DataError:
        return None
    return sum(p.question in known for p in problems)
