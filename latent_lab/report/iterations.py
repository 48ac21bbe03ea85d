"""What ``task=iterations`` does: chains read from files, analysed, and shown as a table, a figure and a page."""

import csv
import hashlib
import io
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from latent_lab.config import NOT_RESULT, ConfigError, EvalConfig
from latent_lab.deliberation import behaviour_judge
from latent_lab.deliberation.analysis import analysis, sample
from latent_lab.deliberation.chains import Table
from latent_lab.deliberation.forms import FORMS, read
from latent_lab.files import atomic
from latent_lab.job import Job
from latent_lab.overrides import as_typed
from latent_lab.report.iterations_figure import draw
from latent_lab.report.iterations_task import IterationsTask
from latent_lab.report.study_page import interval, p_value, write
from latent_lab.run import RESULT, SAMPLES, open_run, say_complete, say_result

TABLES, FIGURE, PAGE = "tables.csv", "iterations.png", "report.html"


def iterations(task: IterationsTask, job: Job) -> dict[str, Any]:
    """Do ``task=iterations``: see :class:`latent_lab.report.iterations_task.IterationsTask`."""
    config: EvalConfig = job.config
    if not task.path:
        raise ConfigError("path", None, f"allowed: {FORMS}; write path=FILE")
    started = time.monotonic()
    path = Path(task.path).expanduser()
    table = read(path).first(config.limit)
    folder = Path(config.out) if config.out else Path(config.outputs) / "iterations" / (path.stem or "here")
    judge = behaviour_judge.asking(config.judge)
    identity = {"chains_read": fingerprint(table), **behaviour_judge.identity(judge)}
    options: dict[str, Any] = {"command": job.command, "ignore": NOT_RESULT, "overwrite": config.overwrite}
    with open_run(folder, {**job.plain, **identity}, **options) as run:
        if run.result is None:
            if judge:
                judge.check_ready()
            run.track(config.tracker, job_type="eval", group=job.group)
            judged = behaviour_judge.judged(judge, table, folder, config.device, config.seed) if judge else None
            result = {"task": "iterations", "path": task.path, **analysis(table, config.seed, judged)}
            run.samples([sample(chain) for chain in table.chains])
            with atomic(folder / TABLES) as temporary:
                temporary.write_text(as_csv(result), encoding="utf-8")
            with atomic(folder / FIGURE) as temporary:
                draw(result, temporary)
            write(
                folder / PAGE, "iterations.html.j2", [folder / FIGURE], [*map(as_typed, job.command)], result=result, cases=None
            )
            run.finish({**result, "seconds": round(time.monotonic() - started, 3)})
        else:
            say_complete(folder)
    stored = run.result or {}
    say_result(folder, in_words(stored), (PAGE, FIGURE, TABLES, SAMPLES, RESULT))
    return stored


def fingerprint(table: Table) -> str:
    """A hash of all that was read."""
    return hashlib.blake2b("\n".join(map(repr, table.chains)).encode(errors="replace"), digest_size=8).hexdigest()


def as_csv(result: dict[str, Any]) -> str:
    """Every accuracy in a row of its own."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["method", "iteration", "group", "value", "n", "accuracy", "low", "high"])
    for name, method in result["methods"].items():
        for each in method["iterations"]:
            parts = [("all", "", each["accuracy"])]
            parts += [("run", run, {"value": value}) for run, value in each["per_run"].items()]
            parts += [("year", year, part) for year, part in each.get("per_year", {}).items()]
            for group, value, share in parts:
                columns = [share.get(key, "") for key in ("n", "value", "low", "high")]
                writer.writerow([name, each["iteration"], group, value, *columns])
    return file.getvalue()


def in_words(result: dict[str, Any]) -> Iterator[str]:
    """A result in lines for the terminal: a table with a row for each method, the best first, and what it amounts to."""
    last = result["num_iterations"] - 1
    head = [
        "accuracy, %",
        *map(str, range(last + 1)),
        "gain",
        "fixed/broken",
        *("McNemar p", "Holm"),
        *("sign-flip p", "Holm"),
        "vote",
    ]
    yield from aligned([head, *(row(name, result["methods"][name]) for name in result["ranking"]["order"])])
    floors = "".join(f", floor ({name}) {interval(each)}" for name, each in result.get("floors", {}).items())
    yield f"{result['num_problems']} problems{floors}; intervals: {result['interval']}"
    if result["errors"]:
        yield f"{result['errors']} of {result['num_chains']} chains ended in an error and count as wrong"
    yield result["gains"]
    yield result["ranking"]["verdict"]
    if "behaviours_judge" in result:
        yield judge_in_words(result["behaviours_judge"])
    best = result["methods"][result["ranking"]["order"][0]]
    if "votes" in best:
        yield vote_in_words(result["ranking"]["order"][0], best)


def row(name: str, method: dict[str, Any]) -> list[str]:
    """The row of a method."""
    gain, votes = method["gain"], method.get("votes")
    return [
        name,
        *(f"{100 * each['accuracy']['value']:.2f}" for each in method["iterations"]),
        interval(gain["difference"], signed=True, digits=2),
        f"{gain['fixed']}/{gain['broken']}",
        *(p_value(gain[key]) for key in ("mcnemar_p", "mcnemar_holm_p", "sign_flip_p", "sign_flip_holm_p")),
        f"{100 * votes[-1]['accuracy']['value']:.1f}" if votes else "-",
    ]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines with columns of equal width, the first flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]


def judge_in_words(judge: dict[str, Any]) -> str:
    """Who labelled sentences, and how far the rules agree."""
    kappa = judge["kappa_with_rules"]
    agreed = "not defined" if kappa["low"] is None else f"{kappa['value']:.2f} [{kappa['low']:.2f}, {kappa['high']:.2f}]"
    calls = f", {judge['calls']['calls']} calls" if "calls" in judge else ""
    unread = interval(judge["unreadable"])
    return f"behaviours by {judge['name']}: {judge['texts']} texts, kappa with the rules {agreed}, no label {unread}{calls}"


def vote_in_words(name: str, method: dict[str, Any]) -> str:
    """The vote over the last iterations of a method's runs, and what other rules for ties would make of it."""
    vote, first = method["votes"][-1], method["votes"][0]
    rules = {rule: value for rule, value in vote["rules"].items() if rule != vote["rule"]}
    others = ", ".join(f"{rule} {100 * value:.1f}" for rule, value in rules.items())
    ties = f", {vote['ties']} ties" if "ties" in vote else ""
    said = f"a vote of {name}'s {len(method['runs'])} runs: {interval(vote['accuracy'])}, at first {interval(first['accuracy'])}"
    return f"{said} ({vote['rule']}{ties}; other rules: {others})"
