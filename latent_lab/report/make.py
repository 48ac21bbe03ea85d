"""From a trained run to the numbers and the page of ``task=report``."""

import json
import logging
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from latent_lab import checkpoint
from latent_lab.config import TrainConfig
from latent_lab.grading.evaluate import evenly, in_words
from latent_lab.grading.session import Session, session
from latent_lab.grading.statistics import wilson
from latent_lab.grading.task import Answers
from latent_lab.job import Job
from latent_lab.problems import Problem
from latent_lab.problems.arithmetic import Arithmetic
from latent_lab.report.page import Report, ReportError, write_page
from latent_lab.report.task import ReportTask
from latent_lab.report.thoughts_make import EXPLORER
from latent_lab.run import CONFIG, METRICS, PROVENANCE, RESULT

log = logging.getLogger(__name__)

PAGE = "report.html"

METHODS = {
    "majority": "majority answer",
    "thoughts_removed": "thoughts removed",
    "thoughts_zeroed": "thoughts replaced by zeros",
    "thoughts_another_problem": "thoughts of another problem",
}
"""How the page names the floors."""


def report(task: ReportTask, job: Job) -> dict[str, Any]:
    """Do ``task=report``: see :class:`latent_lab.report.task.ReportTask`."""
    started = time.monotonic()
    explored = explored_in(Path(task.thoughts)) if task.thoughts else None
    with session(job, Answers()) as at:
        if at.run.result is None:
            scored, rows = at.score(at.problems)
            result = {"task": "report", "run": at.config.run, "split": at.config.split, **scored}
            longer = longer_problems(task, at.trained)
            beyond, beyond_rows = at.score(longer) if longer else (None, [])
            result["beyond"] = {"digits": longer[0].meta["digits"], **beyond} if beyond else None
            result["reading"] = reading(at) if at.decoder else None
            result["training"] = training = stored(at.config.run_folder / RESULT)
            result["ladder"] = explored["ladder"] if explored else None
            spent = training["seconds"] + (60 * explored["minutes"] if explored else 0) + time.monotonic() - started
            result["minutes"] = round(spent / 60, 2)
            shown = random.Random(0).sample(at.problems, min(task.problems, len(at.problems)))
            cards = {"problems": one_by_one(at, shown, rows)}
            if longer:
                cards["hard_problems"] = one_by_one(at, longer[:3], beyond_rows)
            at.run.samples(rows)
            if at.run.is_main:
                write_page(at.run.folder / PAGE, Report.from_dict(page_content(task, at, result) | cards), explored)
            at.run.finish(result)
    result = at.run.result or {}
    log.info("%s: %s", at.run.folder, in_words(result))
    log.info("the page: %s", at.run.folder / PAGE)
    return result


def explored_in(folder: Path) -> dict[str, Any]:
    """What a finished ``task=thoughts`` found: ladder, examples, minutes, and its page. ReportError where there is none."""
    if not (folder / RESULT).is_file() or not (folder / EXPLORER).is_file():
        raise ReportError(f"task.thoughts: {folder} holds no finished task=thoughts; allowed: the folder of one, or null")
    found = stored(folder / RESULT)
    return {
        "ladder": found["ladder"],
        "minutes": found["minutes"],
        "examples": stored(folder / EXPLORER),
        "page": str(folder / PAGE),
    }


def longer_problems(task: ReportTask, trained: TrainConfig) -> list[Problem]:
    """Sums longer than any that was trained; none for other datasets."""
    dataset = trained.dataset
    if not isinstance(dataset, Arithmetic) or not task.longer:
        return []
    digits = max(dataset.digits) + task.longer
    return replace(dataset, digits=[digits], probabilities=[1.0], test_size=task.longer_size).load("test")


def stored(path: Path) -> Any:
    """What a JSON file holds."""
    return json.loads(path.read_text(encoding="utf-8"))


@torch.no_grad()
def read(at: Session, thoughts: Tensor) -> list[list[str]]:
    """What the step decoder writes from thoughts ``[problems, slots, width]``, as text."""
    assert at.decoder is not None
    problems, slots, width = thoughts.shape
    ids = at.decoder.read(thoughts.reshape(-1, width), at.solver.backbone.tokenizer.eos_token_id).tolist()
    texts = [at.solver.text(row) for row in ids]
    return [texts[i * slots : (i + 1) * slots] for i in range(problems)]


def reading(at: Session) -> dict[str, Any]:
    """How often the decoder reads a step exactly out of its thought, beside two floors, over all slots that stand for a step.

    The floors: the same decoder on another problem's thoughts, and always the most frequent step of the training split.
    """
    solver = at.solver
    frequent = checkpoint.most_frequent([step for p in at.trained.dataset.load("train") for step in p.steps])
    hits: list[tuple[int, bool, bool, bool]] = []
    for part in evenly(at.trained.stage.encode(at.problems, solver.backbone.tokenizer), solver.batch_size):
        thoughts = solver.thoughts(part)
        own, other = read(at, thoughts), read(at, thoughts.roll(1, dims=0))
        for problem, mine, another in zip(part, own, other, strict=True):
            gold = solver.gold_texts(problem)
            hits += [(i, mine[i] == g, another[i] == g, frequent == g) for i, g in enumerate(gold) if g]
    slots = sorted({h[0] for h in hits})
    return {
        "exact": share([h[1] for h in hits]),
        "floors": {
            "thoughts_of_another_problem": share([h[2] for h in hits]),
            "most_frequent_step": share([h[3] for h in hits]),
        },
        "by_slot": {str(slot + 1): share([h[1] for h in hits if h[0] == slot]) for slot in slots},
    }


def share(hits: Sequence[bool]) -> dict[str, Any]:
    """How many of them are true, with a Wilson interval."""
    return wilson(sum(hits), len(hits)).as_dict()


def one_by_one(at: Session, problems: Sequence[Problem], rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Problems with the model's answers and what is read in each of their thoughts, for the page."""
    by_id = {row["id"]: row for row in rows}
    encoded = at.trained.stage.encode(problems, at.solver.backbone.tokenizer)
    thoughts = at.solver.thoughts(encoded)
    texts = read(at, thoughts) if at.decoder else [[] for _ in problems]
    shown = []
    for number, (problem, code, read_here) in enumerate(zip(problems, encoded, texts, strict=True)):
        row = by_id[problem.id]
        gold = [text or "" for text in at.solver.gold_texts(code)] if read_here else []
        cells: list[dict[str, Any]] = [
            {"slot": slot + 1, "read": text, "gold": want, "right": text == want}
            for slot, (text, want) in enumerate(zip(read_here, gold, strict=True))
        ]
        for slot, cell in enumerate(cells if number == 0 else []):
            cell["vector"] = [round(x, 2) for x in thoughts[0, slot].tolist()]
        answer = {"answer": row["answer"] or row["output"], "gold": problem.answer, "right": row["correct"] is True}
        shown.append({"question": problem.question, **answer, "thoughts": cells})
    return shown


def page_content(task: ReportTask, at: Session, result: dict[str, Any]) -> dict[str, Any]:
    """What the page shows, in the form :meth:`Report.from_dict` takes, but for the single problems."""
    folder, trained = at.config.run_folder, at.trained
    attempt = stored(folder / PROVENANCE)["attempts"][-1]
    chosen = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    rows = [json.loads(line) for line in (folder / METRICS).read_text(encoding="utf-8").splitlines()]
    trains = [row for row in rows if "train/loss" in row]
    accuracy = scores(label(trained, result), result)
    if result["beyond"]:
        accuracy += scores(f"{result['beyond']['digits']} digits (never trained)", result["beyond"])
    kinds = {"digits": "by number of digits", "carries": "by number of carries", "steps": "by number of steps"}
    return {
        "title": task.title,
        "command": " ".join(attempt["command"]),
        "seed": trained.seed,
        "minutes": result["minutes"],
        "revision": str((attempt.get("git") or {}).get("revision", "unknown"))[:10],
        "parameters": result["training"]["parameters"],
        "model": str(chosen["model"].get("path") or "nano"),
        "dataset": type(trained.dataset).__name__.lower(),
        "latents": result["slots"],
        "created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "curve": [
            {
                "step": row["step"],
                "stage": row["stage"],
                "loss": row["train/loss"],
                "supervision_loss": row.get("train/steps_loss"),
                "seconds": row["seconds"],
            }
            for row in trains
        ],
        "validation": [
            {"step": row["step"], "stage": row["stage"], "seconds": row["seconds"]}
            | {key: row[f"valid/{key}"] for key in ("accuracy", "n", "low", "high")}
            for row in rows
            if "valid/accuracy" in row
        ],
        "stages": spans(rows),
        "accuracy": accuracy,
        "breakdown": {
            name: [{"label": value, **interval} for value, interval in result[f"by_{key}"].items()]
            for key, name in kinds.items()
            if f"by_{key}" in result
        },
        "cost": {
            "tokens_per_answer": result["tokens_per_answer"],
            "thoughts_per_answer": result["thoughts_per_answer"],
            "milliseconds_per_answer": 1000 * result["seconds"] / max(result["accuracy"]["n"], 1),
            "written_reasoning_tokens": 0,
            "chain_tokens": result["chain_tokens"],
        },
        **({"reading": reading_content(result["reading"])} if result["reading"] else {}),
        "notes": notes(result, trained),
    }


def label(trained: TrainConfig, result: dict[str, Any]) -> str:
    """What the graded problems are called."""
    if isinstance(trained.dataset, Arithmetic):
        digits = sorted(trained.dataset.digits)
        return f"{digits[0]}-{digits[-1]} digits" if len(digits) > 1 else f"{digits[0]} digits"
    return f"{result['split']} split"


def scores(name: str, result: dict[str, Any]) -> list[dict[str, Any]]:
    """An accuracy and its floors as rows of the page's table."""
    rows = [{"name": name, "method": "latent thoughts", "kind": "model", **result["accuracy"]}]
    return rows + [
        {"name": name, "method": METHODS[key], "kind": "floor", **interval} for key, interval in result["floors"].items()
    ]


def spans(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """First and last step of each stage, from the metrics."""
    last: dict[int, int] = {}
    for row in rows:
        last[row["stage"]] = row["step"]
    ends = list(last.values())
    return [
        {"stage": stage, "first_step": first + 1, "last_step": end}
        for (stage, end), first in zip(last.items(), [0, *ends[:-1]], strict=True)
    ]


def reading_content(result: dict[str, Any]) -> dict[str, Any]:
    """The readings in the page's words."""
    return {
        "name": "what the auxiliary decoder reads in each thought",
        "exact": result["exact"],
        "floors": [{"method": key.replace("_", " "), **interval} for key, interval in result["floors"].items()],
        "per_slot": [{"slot": int(slot), **interval} for slot, interval in result["by_slot"].items()],
    }


def notes(result: dict[str, Any], trained: TrainConfig) -> list[str]:
    """What a sceptic should know."""
    lines = [
        f"One seed ({trained.seed}), one model. No weights were chosen on the {result['split']} split: they are the "
        "best by validation accuracy.",
        "Answers are greedy and must stop by themselves; one that does not stop, or holds no answer, is unscored and not right "
        f"({result['not_stopped']} and {result['no_answer']} here). Every prompt has the same number of thoughts.",
    ]
    if result["seen_in_training"] is not None:
        lines.append(f"Questions that also stand in the training split: {result['seen_in_training']}.")
    if result["reading"]:
        lines.append(
            "The auxiliary decoder was trained with the model and takes no part in answering. That a step can be read in a "
            "thought does not prove that the answer is computed from it."
        )
    return lines
