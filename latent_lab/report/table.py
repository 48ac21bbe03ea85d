"""From many finished runs to the table of ``task=table``: each is graded as ``task=answers`` does it, or was already."""

import json
import logging
import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from latent_lab import checkpoint
from latent_lab.config import NOT_RESULT, ConfigError, EvalConfig
from latent_lab.files import atomic
from latent_lab.grading.session import CHECKPOINT, trained_config
from latent_lab.job import Job
from latent_lab.overrides import as_typed
from latent_lab.problems import DataError, Dataset, Problem, Split, fingerprint
from latent_lab.problems.files import NoSplit
from latent_lab.report.graded import graded as graded_as
from latent_lab.report.shortcuts import floors
from latent_lab.report.table_figure import draw
from latent_lab.report.table_pairs import Scored, pairs
from latent_lab.report.table_pairs import markdown as pairs_as_markdown
from latent_lab.report.table_rows import in_words, markdown, row, rule_row
from latent_lab.report.table_runs import Group, Trained
from latent_lab.report.table_task import TableTask
from latent_lab.run import RESULT, SAMPLES, open_run, say_complete

log = logging.getLogger(__name__)

TABLE, FIGURE = "table.md", "table.png"
WITH_GOLD = "correct_with_gold_plan"
NOT_OURS = ("task", "run", "out", "overwrite")
"""Words of this task's command that say nothing of how a run is graded."""


def table(task: TableTask, asked: Job, groups: Sequence[Group], against: Sequence[str]) -> dict[str, Any]:
    """Do ``task=table``: see :class:`latent_lab.report.table_task.TableTask`."""
    config: EvalConfig = asked.config
    started = time.monotonic()
    runs = [run for group in groups for run in group.runs]
    dataset, problems = problems_of(config, runs)
    folder = folder_of(config, asked)
    weights = {name_of(run, asked): checkpoint.weights_hash(run.folder / CHECKPOINT) for run in runs}
    identity = {"problems": fingerprint(problems), "weights": weights}
    options: dict[str, Any] = {"command": asked.command, "ignore": NOT_RESULT, "overwrite": config.overwrite}
    with open_run(folder, {**asked.plain, **identity}, **options) as run:
        if run.result is None:
            rows, scored, told = models(groups, asked)
            run.track(config.tracker, job_type="eval", group=asked.group)
            if task.shortcuts:
                rows += rules(dataset, problems)
            name = asked.chosen("dataset") or runs[0].overrides.get("dataset", type(dataset).__name__)
            compared = pairs(scored, against, told) if against else []
            result = {"task": "table", "dataset": name, "split": config.split, "n": len(problems), "rows": rows}
            if against:
                result["pairs"] = compared
            with atomic(folder / TABLE) as temporary:
                command = shlex.join(map(as_typed, asked.command))
                more = [*pairs_as_markdown(compared), ""] if against else ()
                temporary.write_text(markdown(result, command, more), encoding="utf-8")
            with atomic(folder / FIGURE) as temporary:
                draw(result, temporary)
            run.finish({**result, "seconds": round(time.monotonic() - started, 3)})
        else:
            say_complete(folder)
    stored = run.result or {}
    for line in (*map(in_words, stored["rows"]), f"{folder}: {', '.join((TABLE, FIGURE, RESULT))}"):
        log.info("%s", line)
    return stored


def folder_of(config: EvalConfig, asked: Job) -> Path:
    """Where the table goes: as told, else below the only run if that is what ``run`` names, else below ``outputs/tables``."""
    if config.out:
        return Path(config.out)
    return config.run_folder / "eval" / asked.slug if config.run else Path(config.outputs) / "tables" / asked.slug


def name_of(run: Trained, asked: Job) -> str:
    """A run's path below ``outputs``, as ``run=`` would take it."""
    return os.path.relpath(run.folder, asked.config.outputs)


def problems_of(config: EvalConfig, runs: Sequence[Trained]) -> tuple[Dataset, list[Problem]]:
    """The problems that all runs are graded on: the dataset asked for, or that of the runs if it is the same for all."""
    datasets: dict[str, tuple[Trained, Dataset]] = {}
    if config.dataset is not None:
        datasets["asked for"] = (runs[0], config.dataset)
    for run in runs if config.dataset is None else ():
        text = json.dumps(run.config["dataset"], sort_keys=True)
        if text not in datasets:
            datasets[text] = (run, trained_config(run.folder).dataset)
    loaded = [(run, dataset, dataset.load(cast(Split, config.split))[: config.limit]) for run, dataset in datasets.values()]
    first, dataset, problems = loaded[0]
    for other, another, theirs in loaded[1:]:
        if fingerprint(theirs) != fingerprint(problems):
            names = [f"{run.folder.name} ({type(its).__name__})" for run, its in ((first, dataset), (other, another))]
            rest = f"{' and '.join(names)} were trained on datasets whose {config.split} splits differ; allowed: runs of one "
            raise ConfigError("dataset", None, rest + "dataset, or the problems to grade all of them on, as in dataset=gsm8k")
    if not problems:
        raise DataError(f"split={config.split}: the dataset has no problem there; choose another split or dataset")
    return dataset, problems


def models(groups: Sequence[Group], asked: Job) -> tuple[list[dict[str, Any]], dict[str, Scored], dict[str, Scored]]:
    """A row for each group, who answered what rightly, and the same where the gold plan was given.

    What an interrupted table has graded is not graded again.
    """
    rows, done, total = [], 0, sum(len(group.runs) for group in groups)
    scored, told = dict[str, Scored](), dict[str, Scored]()
    for group in groups:
        graded, samples = [], {}
        for run in group.runs:
            done += 1
            log.info("run %d of %d: %s", done, total, run.folder)
            folder, result = graded_as(run.folder, asked, NOT_OURS)
            graded.append(result)
            lines = (folder / SAMPLES).read_text(encoding="utf-8").splitlines()
            samples[run.seed] = [json.loads(line) for line in lines]
        names, seeds = [name_of(run, asked) for run in group.runs], [run.seed for run in group.runs]
        rows.append(row(group.label, names, seeds, graded, [run.result for run in group.runs]))
        scored[group.label] = right(samples, "correct")
        if all(is_told(result) for result in graded):
            told[group.label] = right(samples, WITH_GOLD)
    return rows, scored, told


def right(samples: dict[int, list[dict[str, Any]]], column: str) -> Scored:
    """By seed and problem, whether a column of graded rows says that the answer is right."""
    return {seed: {each["id"]: each[column] is True for each in rows} for seed, rows in samples.items()}


def is_told(result: dict[str, Any]) -> bool:
    """Whether a result has answers with the gold plan given, and this plan says something: not all its blocks are alike."""
    return result.get("plans", {}).get("kinds", {}).get("bits_of_gold", 0) > 0


def rules(dataset: Dataset, problems: list[Problem]) -> list[dict[str, Any]]:
    """A row for each rule that makes sense for the problems, the highest score first."""
    try:
        train = dataset.load("train")
    except NoSplit:
        train = []
    scores = floors(problems, train, getattr(dataset, "shortcuts", dict)())
    return [rule_row(name, score) for name, score in sorted(scores.items(), key=lambda item: -item[1]["value"])]
