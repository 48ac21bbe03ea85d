"""From a trained run to everything ``task=thoughts`` says about its thoughts."""

import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from latent_lab.config import EvalConfig
from latent_lab.files import write_json
from latent_lab.grading.session import session, trained_config
from latent_lab.grading.task import Answers
from latent_lab.job import Job
from latent_lab.report.thoughts_claims import ladder
from latent_lab.report.thoughts_figure import draw_thoughts
from latent_lab.report.thoughts_oracle import ready_oracle
from latent_lab.report.thoughts_page import write_page
from latent_lab.report.thoughts_parts import agreement, frontier, geometry, interventions, lenses, oracle, probes, shown
from latent_lab.report.thoughts_reading import Reading, Unreadable, with_steps
from latent_lab.report.thoughts_task import ThoughtsTask
from latent_lab.run import RESULT, say_complete

log = logging.getLogger(__name__)

PAGE = "report.html"
EXPLORER = "explorer.json"


def thoughts(task: ThoughtsTask, job: Job) -> dict[str, Any]:
    """Do ``task=thoughts``: see :class:`latent_lab.report.thoughts_task.ThoughtsTask`."""
    started = time.monotonic()
    config: EvalConfig = job.config
    check_readable(config)
    if job.chosen("oracle") == "none":
        others = [part for part in task.parts if part != "oracle"]
        if not others:
            raise Unreadable(f"oracle: given none with task.only={task.only}, which leaves nothing to do; leave one of them out")
        task = replace(task, only=others)
    oracle_folder = ready_oracle(task, job) if "oracle" in task.parts else None
    with session(job, Answers()) as at:
        if at.run.result is None:
            at.problems = [with_steps(problem) for problem in at.problems]
            result = everything(Reading(task, at, oracle_folder), job, started)
            at.run.finish(result)
        else:
            say_complete(at.run.folder)
    result = at.run.result or {}
    log.info("%s: %s", at.run.folder, in_words(result))
    log.info("the page: %s", at.run.folder / PAGE)
    return result


def check_readable(config: EvalConfig) -> None:
    """Raise :class:`Unreadable` where there are no thoughts, or several processes would write one store."""
    trained = trained_config(config.run_folder)
    if not trained.stage.has_slots:
        raise Unreadable(f"run: {config.run} has no latent slots, so there is no thought to read; allowed: runs that think")
    if trained.stage.slots_when_said(trained.stage.phases()[-1].stage):
        raise Unreadable(f"run: {config.run} writes between its thoughts; allowed: runs whose thoughts stand in their prompts")
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise Unreadable("task=thoughts: it works in one process; start it without torchrun")


def everything(reading: Reading, job: Job, started: float) -> dict[str, Any]:
    """The whole result; also writes samples, figures and the page."""
    task, at, config = reading.task, reading.at, reading.config
    if task.parts != ("interventions",) and not any(problem.steps for problem in at.problems):
        raise Unreadable(
            f"dataset: none of the {len(at.problems)} problems has steps that readings could be held against; "
            f"give problems with steps, sums of two equally long numbers, or task.only=[interventions]"
        )
    scored, rows = at.score(at.problems)
    at.run.samples(rows)
    training = json.loads((config.run_folder / RESULT).read_text(encoding="utf-8"))
    result: dict[str, Any] = {
        "task": "thoughts",
        "run": config.run,
        "split": config.split,
        "n": len(at.problems),
        "kind": reading.kind,
        **scored,
        "training": training,
        "store": stored(reading),
    }
    result["geometry"] = geometry(reading)
    if "lenses" in task.parts:
        result["lenses"] = timed("lenses", lambda: lenses(reading))
    if "probes" in task.parts:
        result["probes"] = timed("probes", lambda: probes(reading))
    if "oracle" in task.parts:
        result["oracle"] = timed("oracle", lambda: oracle(reading))
    if "interventions" in task.parts:
        result["interventions"] = timed("interventions", lambda: interventions(reading))
        result["agreement"] = timed("agreement", lambda: agreement(reading))
    if reading.grammar.name == "nodes" and not reading.at.solver.backbone.num_virtual:
        result["frontier"] = timed("frontier", lambda: frontier(reading))
    result["ladder"] = ladder(result, reading.grammar.primary, reading.kind, task.thresholds)
    explored = shown(reading)
    result["minutes"] = round((time.monotonic() - started) / 60, 2)
    pictures = draw_thoughts(result, at.run.folder)
    write_json(at.run.folder / EXPLORER, explored)
    write_page(at.run.folder / PAGE, result, explored, pictures, job.command)
    return result


def timed(name: str, part: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Do a part, and log how long it took."""
    started = time.monotonic()
    found = part()
    log.info("%s: %.1f s", name, time.monotonic() - started)
    return found


def stored(reading: Reading) -> dict[str, Any]:
    """Collect the thoughts of both splits, and say what was collected and how fast."""
    started = time.monotonic()
    train, test = reading.train, reading.test
    seconds = time.monotonic() - started
    states = test.layer(test.layers[0])
    log.info("thoughts of %d problems: %.1f s", len(train.rows) + len(test.rows), seconds)
    return {
        "problems": len(test.rows),
        "fitted_on": len(train.rows),
        "slots": states.shape[1],
        "layers": list(test.layers),
        "width": states.shape[2],
        "dtype": test.manifest["dtype"],
        "weights": test.manifest["weights"],
        "problems_hash": test.manifest["split"],
        "fitted_on_hash": train.manifest["split"],
        "seconds": round(seconds, 3),
    }


def in_words(result: dict[str, Any]) -> str:
    """A result in one line for the terminal."""
    said = [f"{result['ladder']['level']} ({result['ladder']['name']}, {result['kind']} thoughts) of {result['n']} problems"]
    parts = {"oracle writes the step exactly": result.get("oracle", {}).get("step_exact_match")}
    parts |= {"probes read all its fields": result.get("probes", {}).get("whole_step")}
    said += [f"{name} {100 * score['value']:.1f}%" for name, score in parts.items() if score and score["value"] is not None]
    return "; ".join(said)
