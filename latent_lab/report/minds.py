"""From finished ``task=thoughts`` results to one figure: equally right, and not equally open."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latent_lab.config import NOT_RESULT, EvalConfig
from latent_lab.files import atomic
from latent_lab.grading.session import fingerprint
from latent_lab.job import Job
from latent_lab.report.minds_task import MindsTask
from latent_lab.report.thoughts_claims import SITE
from latent_lab.report.thoughts_figure import flagship
from latent_lab.run import RESULT, open_run

log = logging.getLogger(__name__)

FIGURE = "flagship.png"


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
    folder = Path(config.out) if config.out else Path(config.outputs) / job.slug
    identity = {"results": {str(path): fingerprint(path) for paths in groups.values() for path in paths}}
    options: dict[str, Any] = {"command": job.command, "ignore": NOT_RESULT, "overwrite": config.overwrite}
    with open_run(folder, {**job.plain, **identity}, **options) as run:
        if run.result is None:
            models = {
                label: model([json.loads(path.read_text(encoding="utf-8")) for path in paths], label)
                for label, paths in groups.items()
            }
            with atomic(folder / FIGURE) as temporary:
                flagship(temporary, models)
            run.finish({"task": "minds", "models": models})
    result = run.result or {}
    for label, each in result["models"].items():
        log.info("%s (%d): %s", label, each["seeds"], in_words(each))
    log.info("%s: %s, %s", folder, FIGURE, RESULT)
    return result


def model(results: Sequence[dict[str, Any]], label: str) -> dict[str, Any]:
    """One model out of the results of its seeds, as :func:`latent_lab.report.thoughts_figure.flagship` takes it.

    ``probe`` reads the primary field over all steps' own slots, ``oracle`` writes whole column steps, ``columns`` are the
    target-wins of exchanges in the longest sums; a mind that keeps its answer where it should change is at 0 there.
    """
    exchanges = [result.get("interventions", {}).get("interchange", {}).get(SITE) for result in results]
    if any(exchange is None for exchange in exchanges):
        raise MindsError(
            f"task.results: some result of {label} holds no exchange of columns; allowed are sums, read with interventions"
        )
    columns = [[column["target"] for column in exchange["columns"]] for exchange in exchanges if exchange]
    probes = [result["probes"]["fields"]["write"]["all"] for result in results if "probes" in result]
    oracles = [result["oracle"]["column_step_exact_match"] for result in results if "oracle" in result]
    found = {
        "accuracy": over([result["accuracy"] for result in results]),
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
