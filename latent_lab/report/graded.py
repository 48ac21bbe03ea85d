"""A run graded as ``task=answers`` does it, or as that was stored: what tables and studies are made of."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from latent_lab.config import NOT_RESULT, EvalConfig
from latent_lab.grading.session import IDENTITY, answers
from latent_lab.job import Job, job
from latent_lab.overrides import parse
from latent_lab.run import CONFIG, RESULT, RunConflict


def graded(run: Path, asked: Job, dropped: Collection[str] = ("run", "out", "overwrite")) -> tuple[Path, dict[str, Any]]:
    """Grade a run with the words of a job but for those ``dropped``; returns the evaluation's folder and its result.

    ``overwrite=true`` redoes what was asked for, and of the evaluations only those whose problems or weights have changed since.
    """
    words = [text for text in asked.overrides if parse(text).key_or_group.partition(".")[0] not in dropped]
    words = [*words, f"run={run}"]
    evaluation = job("eval", words)
    stored = stored_as(run, evaluation)
    if stored and stored.name != evaluation.slug:
        words.append(f"out={stored}")
        evaluation = job("eval", words)
    try:
        result = answers(evaluation.config.task, evaluation)
    except RunConflict:
        if not asked.config.overwrite:
            raise
        evaluation = job("eval", [*words, "overwrite=true"])
        result = answers(evaluation.config.task, evaluation)
    config: EvalConfig = evaluation.config
    return Path(config.out) if config.out else config.run_folder / "eval" / evaluation.slug, result


def stored_as(run: Path, evaluation: Job) -> Path | None:
    """Where a run's folder holds the result of an evaluation, in whatever words it was asked for (``task=answers`` or not)."""

    def what(config: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in config.items() if key not in NOT_RESULT | IDENTITY}

    for result in sorted((run / "eval").glob(f"*/{RESULT}")):
        if what(yaml.safe_load((result.parent / CONFIG).read_text(encoding="utf-8"))) == what(evaluation.plain):
            return result.parent
    return None
