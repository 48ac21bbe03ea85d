"""``task=table`` of oracles: what each reads of thoughts, as its training found it on the validation split.

A grid of settings (where vectors are added, what they pass through first, at what scale) becomes one table; test problems stay
unseen, so that it may choose.
"""

import logging
import shlex
from collections.abc import Sequence
from typing import Any

from latent_lab.config import NOT_RESULT, ConfigError, EvalConfig
from latent_lab.files import atomic
from latent_lab.job import Job
from latent_lab.overrides import as_typed
from latent_lab.problems import fingerprint
from latent_lab.report.minds import over
from latent_lab.report.table import TABLE, folder_of
from latent_lab.report.table_rows import between, grid, percent
from latent_lab.report.table_runs import Group
from latent_lab.report.table_task import TableTask
from latent_lab.run import RESULT, open_run, say_complete

log = logging.getLogger(__name__)

HEAD = ("oracle", "seeds", "column steps exact, % [95% interval]", "largest floor, %", "share of the room won, %",
        "all steps exact, %", "steps", "seconds")  # fmt: skip
NOTE = (
    "Steps that the oracle writes exactly from thoughts of the validation split; column steps leave out the one that a constant "
    "guess gets right too often. With several seeds: their mean, and an interval that spans theirs. Seconds: of training."
)


def oracle_table(task: TableTask, asked: Job, groups: Sequence[Group]) -> dict[str, Any]:
    """Write ``table.md`` and then ``result.json`` into ``out``, and return the result; a row for each group of seeds."""
    config: EvalConfig = asked.config
    if task.against:
        raise ConfigError("task.against", ", ".join(task.against), "oracles answer no problems; allowed: leave it out")
    folder = folder_of(config, asked)
    identity = {"results": {str(run.folder): fingerprint(run.folder / RESULT) for group in groups for run in group.runs}}
    options: dict[str, Any] = {"command": asked.command, "ignore": NOT_RESULT, "overwrite": config.overwrite}
    with open_run(folder, {**asked.plain, **identity}, **options) as run:
        if run.result is None:
            rows = [row(group) for group in groups]
            with atomic(folder / TABLE) as temporary:
                temporary.write_text(markdown(rows, shlex.join(map(as_typed, asked.command))), encoding="utf-8")
            run.finish({"task": "table", "split": "valid", "rows": rows})
        else:
            say_complete(folder)
    stored = run.result or {}
    for each in stored["rows"]:
        exact = each["column_step_exact_match"]
        log.info("%s: %s%% %s of column steps", each["label"], percent(exact["value"]), between(exact))
    log.info("%s: %s, %s", folder, TABLE, RESULT)
    return stored


def row(group: Group) -> dict[str, Any]:
    """What the seeds of a group amount to; see :func:`latent_lab.report.minds.over`."""
    results = [run.result for run in group.runs]
    exact = [result["column_step_exact_match"] for result in results]
    gains = [each["gain"]["value"] for each in exact if each["gain"]["value"] is not None]
    return {
        "label": group.label,
        "runs": [str(run.folder) for run in group.runs],
        "seeds": [run.seed for run in group.runs],
        "column_step_exact_match": over(exact),
        "floor": max(each["floor"] for each in exact),
        "gain": sum(gains) / len(gains) if gains else None,
        "step_exact_match": over([result["step_exact_match"] for result in results]),
        "seconds": sum(result["seconds"] for result in results) / len(results),
    }


def markdown(rows: Sequence[dict[str, Any]], command: str) -> str:
    """The table in GitHub's Markdown, and what its numbers are."""
    return "\n".join([*grid(HEAD, map(cells_of, rows)), "", NOTE, "", f"    {command}", ""])


def cells_of(each: dict[str, Any]) -> tuple[str, ...]:
    """The cells of a row."""
    exact = each["column_step_exact_match"]
    return (
        "`{}`".format(each["label"].replace("|", "\\|")),
        str(len(each["seeds"])),
        f"{percent(exact['value'])} {between(exact)}",
        percent(each["floor"]),
        percent(each["gain"]),
        percent(each["step_exact_match"]["value"]),
        f"{exact['n']:,}",
        f"{each['seconds']:,.0f}",
    )
