"""What one block of planning tokens does to the step after it, by exchanging it for another kind's, and by leaving it out."""

import logging
import random
from collections import Counter
from collections.abc import Sequence as Seq
from dataclasses import replace
from typing import Any

from latent_lab.grading.evaluate import Solver, in_words, rate
from latent_lab.grading.session import session
from latent_lab.grading.statistics import wilson
from latent_lab.grading.task import Answers
from latent_lab.job import Job
from latent_lab.plans.arithmetic import Arithmetic, operators
from latent_lab.plans.base import ASSIGNMENT, Label, Plan, PlanError
from latent_lab.plans.measures import in_whole_blocks, told
from latent_lab.plans.reading import Reading
from latent_lab.plans.task import PlansTask
from latent_lab.plans.votes import voted, votes
from latent_lab.problems import Problem
from latent_lab.run import say_complete
from latent_lab.sequences import Encoded

log = logging.getLogger(__name__)


def plans(task: PlansTask, job: Job) -> dict[str, Any]:
    """Do ``task=plans``."""
    with session(job, Answers()) as at:
        if at.run.result is None:
            encoded = at.trained.stage.encode(at.problems, at.solver.backbone.tokenizer)  # from here on kinds have their tokens
            reading = getattr(at.trained.stage, "reading", None)
            if reading is None or not reading.blocks.is_typed or reading.blocks.place not in ("steps", "plan_first"):
                raise PlanError(f"run: {job.config.run} announces no single steps; allowed: runs of stage=planning that do")
            if reading.blocks.in_words:
                raise PlanError(f"run: {job.config.run} announces steps in words; allowed: runs with tokens (stage.words=false)")
            if task.votes and at.trained.stage.has_slots:
                raise PlanError(f"task.votes={task.votes}: the plan of a run that thinks is not drawn; allowed: 0")
            exchangeable(reading.blocks.plan.labels(at.problems), task.step)  # said before anything is graded
            result, rows = at.score(at.problems)
            result["effects"] = effects(at.solver, at.problems, encoded, reading, task.step, job.config.seed)
            result["whole_blocks"] = in_whole_blocks(at.solver, at.problems, encoded, reading)
            if task.votes:
                result["votes"] = votes(at.solver, at.problems, encoded, rows, reading, task, job.config.seed)
            at.run.samples(rows)
            at.run.finish({"task": "plans", "run": job.config.run, "split": job.config.split, **result})
        else:
            say_complete(at.run.folder)
    result = at.run.result or {}
    log.info("%s: %s", at.run.folder, in_words(result))
    log.info("%s", in_a_line(result["effects"]))
    if "votes" in result:
        log.info("%s", voted(result["votes"]))
    return result


def in_a_line(found: dict[str, Any]) -> str:
    """Effects in one line for the terminal."""
    does, key = ("do that instead", "as_announced") if "as_announced" in found["exchanged"] else ("do otherwise", "changed")
    exchanged, left_out = 100 * found["exchanged"][key]["value"], 100 * found["left_out"]["as_gold"]["value"]
    return (
        f"step {found['step']} announced as another kind: {exchanged:.1f}% of {found['n']} {does}; "
        f"left out: {left_out:.1f}% do as the gold chain"
    )


def effects(
    solver: Solver, problems: Seq[Problem], encoded: Seq[Encoded], reading: Reading, step: int, seed: int
) -> dict[str, Any]:
    """What is written at a step under the gold plan, with that step's block exchanged, and without it.

    Only steps of one kind count, and not those of none. What a step does is its operators; ``as_announced`` says whether they are
    the kind announced (there only where kinds are operators), ``changed`` whether they differ from those under the gold plan.
    """
    plan, id_of = reading.blocks.plan, dict(zip(reading.blocks.tokens(), reading.ids, strict=True))
    labels = plan.labels(problems)
    chosen, kinds = exchangeable(labels, step)
    asked, gold = [problems[i] for i in chosen], [encoded[i] for i in chosen]
    true = [labels[i][step][0] for i in chosen]
    other = [drawn([k for k in kinds if k != own], f"{seed}/{p.id}/{step}") for p, own in zip(asked, true, strict=True)]
    blocks = [tuple(id_of[name] for name in reading.blocks.block((kind,))) for kind in other]
    conditions = {
        "gold": (gold, true),
        "exchanged": ([changed(e, step, block) for e, block in zip(gold, blocks, strict=True)], other),
        "left_out": ([changed(e, step, ()) for e in gold], true),
    }
    found: dict[str, Any] = {"step": step, "n": len(asked), "kinds": kinds}
    done: dict[str, list[list[str]]] = {}
    want = [operators(plan.text(p.steps[step])) for p in asked]
    for name, (given, announced) in conditions.items():
        rows = told(solver, asked, given, reading)
        done[name] = [operators(line_of(row["output"], step)) for row in rows]
        hits = {
            "as_gold": [a == b for a, b in zip(done[name], want, strict=True)],
            **({"as_announced": [a == [b] for a, b in zip(done[name], announced, strict=True)]} if is_told(plan) else {}),
            "changed": [a != b for a, b in zip(done[name], done["gold"], strict=True)],
        }
        rates = {key: wilson(sum(each), len(each)).as_dict() for key, each in hits.items()}
        found[name] = {"accuracy": rate(rows), **rates}
    found["forced"] = {kind: forced(solver, asked, gold, reading, step, kind) for kind in kinds}
    return found


def exchangeable(labels: Seq[Seq[Label]], step: int) -> tuple[list[int], list[str]]:
    """The problems whose block at a step can be exchanged for another's, by their numbers, and the kinds announced there."""
    chosen = [i for i, of in enumerate(labels) if step < len(of) and len(of[step]) == 1 and of[step] != (ASSIGNMENT,)]
    kinds = sorted({labels[i][step][0] for i in chosen})
    if len(kinds) < 2:
        raise PlanError(f"task.step={step}: an exchange takes two kinds, {len(kinds)} are announced there; allowed: another")
    return chosen, kinds


def forced(solver: Solver, problems: Seq[Problem], gold: Seq[Encoded], reading: Reading, step: int, kind: str) -> dict[str, Any]:
    """What all of them write at a step that is announced as one kind, whatever its own: how often each sequence of operators."""
    id_of = dict(zip(reading.blocks.tokens(), reading.ids, strict=True))
    block = tuple(id_of[name] for name in reading.blocks.block((kind,)))
    rows = told(solver, problems, [changed(e, step, block) for e in gold], reading)
    done = [operators(line_of(row["output"], step)) for row in rows]
    counts = Counter(" ".join(each) for each in done)
    as_announced = wilson(sum(each == [kind] for each in done), len(done)).as_dict()
    told_so = {"as_announced": as_announced} if is_told(reading.blocks.plan) else {}
    return {"accuracy": rate(rows), **told_so, "operators": dict(sorted(counts.items()))}


def is_told(plan: Plan) -> bool:
    """Whether a plan's kinds are operators, so that a step can be seen to do what is announced."""
    return isinstance(plan, Arithmetic) and plan.control not in ("filler", "position")


def drawn(kinds: Seq[str], draw: str) -> str:
    """One of the kinds; which one depends on what is drawn for alone."""
    return random.Random(draw).choice(kinds)


def changed(problem: Encoded, step: int, block: tuple[int, ...]) -> Encoded:
    """A problem with another block before one of its steps."""
    return replace(problem, plans=(*problem.plans[:step], block, *problem.plans[step + 1 :]))


def line_of(text: str, step: int) -> str:
    """The line of a reply (without planning tokens) that stands at a step; empty where there is none."""
    lines = text.split("\n")
    return lines[step] if step < len(lines) else ""
