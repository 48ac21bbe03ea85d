"""From finished ``task=thoughts`` results to one figure: equally right, and not equally open."""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from latent_lab.config import NOT_RESULT, EvalConfig
from latent_lab.files import atomic
from latent_lab.job import Job
from latent_lab.problems import fingerprint
from latent_lab.report.minds_task import MindsTask
from latent_lab.report.sweep_figure import draw_sweep
from latent_lab.report.thoughts_claims import SITE
from latent_lab.report.thoughts_figure import flagship
from latent_lab.run import CONFIG, RESULT, open_run

log = logging.getLogger(__name__)

FIGURE, SWEEP = "flagship.png", "sweep.png"


class MindsError(ValueError):
    """Results that cannot be set side by side; the message says which and why."""


def minds(task: MindsTask, job: Job) -> dict[str, Any]:
    """Do ``task=minds``: see :class:`latent_lab.report.minds_task.MindsTask`."""
    config: EvalConfig = job.config
    groups: dict[str, list[Path]] = {}
    for given in task.results:
        label, _, place = given.partition(":")
        groups.setdefault(label, []).append(Path(place) / RESULT)
    if not groups:
        raise MindsError("task.results: given nothing; allowed are LABEL:FOLDER of finished task=thoughts results")
    for path in (path for paths in groups.values() for path in paths):
        if not path.is_file():
            raise MindsError(f"task.results: {path.parent} holds no {RESULT}; run task=thoughts to its end first")
    lines = {label: by_value(task.by, paths, config) for label, paths in groups.items()} if task.by else {}
    folder = Path(config.out) if config.out else Path(config.outputs) / job.slug
    identity = {"results": {str(path): fingerprint(path) for paths in groups.values() for path in paths}}
    options: dict[str, Any] = {"command": job.command, "ignore": NOT_RESULT, "overwrite": config.overwrite}
    with open_run(folder, {**job.plain, **identity}, **options) as run:
        if run.result is None:
            if task.by:
                models = {label: {at: read(paths, label) for at, paths in line.items()} for label, line in lines.items()}
                with atomic(folder / SWEEP) as temporary:
                    draw_sweep(temporary, task.by, models)
            else:
                models = {label: read(paths, label) for label, paths in groups.items()}
                with atomic(folder / FIGURE) as temporary:
                    flagship(temporary, models)
            run.finish({"task": "minds", **({"by": task.by} if task.by else {}), "models": models})
    result = run.result or {}
    for label, each in result["models"].items():
        for at, one in each.items() if task.by else [("", each)]:
            log.info("%s (%d): %s", f"{label}, {task.by}={at}" if task.by else label, one["seeds"], in_words(one))
    log.info("%s: %s, %s", folder, SWEEP if task.by else FIGURE, RESULT)
    return result


def by_value(key: str, paths: Sequence[Path], config: EvalConfig) -> dict[str, list[Path]]:
    """Results by what their run was trained with for ``key`` (dotted), from the smallest value to the largest."""
    found: dict[Any, list[Path]] = {}
    for path in paths:
        trained = replace(config, run=str(path.parent)).run_folder / CONFIG
        if not trained.is_file():
            raise MindsError(f"task.by: the run that {path.parent} reads is not there any more; put it back")
        plain: Any = yaml.safe_load(trained.read_text(encoding="utf-8"))
        for part in key.split("."):
            if not isinstance(plain, dict) or part not in plain:
                allowed = ", ".join(map(str, plain)) if isinstance(plain, dict) else "nothing below"
                raise MindsError(f"task.by: given {key}; {trained.parent} has no {part} there; allowed: {allowed}")
            plain = plain[part]
        found.setdefault(tuple(plain) if isinstance(plain, list) else plain, []).append(path)
    is_ordered = all(isinstance(value, int | float | tuple) for value in found)
    return {in_a_word(value): found[value] for value in (sorted(found) if is_ordered else sorted(found, key=str))}


def in_a_word(value: Any) -> str:
    """A value of a setting as it stands under a point: ``0.1``, ``2, 3``, ``all``."""
    if isinstance(value, tuple):
        return ", ".join(map(in_a_word, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def read(paths: Sequence[Path], label: str) -> dict[str, Any]:
    """One model out of the result files of its seeds."""
    return model([json.loads(path.read_text(encoding="utf-8")) for path in paths], label)


def model(results: Sequence[dict[str, Any]], label: str) -> dict[str, Any]:
    """One model out of the results of its seeds, as :func:`latent_lab.report.thoughts_figure.flagship` takes it.

    ``probe`` reads the primary field over all steps' own slots, ``oracle`` writes whole column steps, ``columns`` are the
    target-wins of exchanges in the longest sums (a mind that keeps its answer where it should change is at 0 there),
    ``another_problem`` is the accuracy with another problem's thoughts.
    """
    exchanges = [result.get("interventions", {}).get("interchange", {}).get(SITE) for result in results]
    if any(exchange is None for exchange in exchanges):
        raise MindsError(
            f"task.results: some result of {label} holds no exchange of columns; allowed are sums, read with interventions"
        )
    columns = [[column["target"] for column in exchange["columns"]] for exchange in exchanges if exchange]
    probes = [result["probes"]["fields"]["write"]["all"] for result in results if "probes" in result]
    oracles = [result["oracle"]["column_step_exact_match"] for result in results if "oracle" in result]
    others = [
        result["floors"]["thoughts_another_problem"] for result in results if "thoughts_another_problem" in result["floors"]
    ]
    found = {
        "accuracy": over([result["accuracy"] for result in results]),
        **({"another_problem": over(others)} if others else {}),
        "columns": [over([each[k] for each in columns]) for k in range(min(map(len, columns)))],
        "chance": exchanges[0]["chance"] if exchanges[0] else None,
        "seeds": len(results),
        "levels": [result["ladder"]["level"] for result in results],
        "kind": results[0]["kind"],
    }
    for name, scores in (("probe", probes), ("oracle", oracles)):
        if scores:
            found[name] = over(scores) | {"floor": max(score["floor"] for score in scores)}
    return found


def over(scores: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean over seeds; its interval spans those of the seeds. With one seed, that one's."""
    values = [score["value"] for score in scores]
    return {
        "value": sum(values) / len(values),
        "low": min(score["low"] for score in scores),
        "high": max(score["high"] for score in scores),
        "n": sum(score["n"] for score in scores),
        "by_seed": values,
    }


def in_words(each: dict[str, Any]) -> str:
    """A model in a line."""
    columns = ", ".join(f"{100 * column['value']:.1f}" for column in each["columns"])
    read = "; ".join(f"{name} {100 * each[name]['value']:.1f}%" for name in ("accuracy", "probe", "oracle") if name in each)
    return f"{read}; the answer follows the donor's thought in {columns}% by column; {', '.join(each['levels'])}"
