"""Does ``task=labels``: chains from a run or a dataset, two questions about them, and what the replies amount to."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from latent_lab.calls.ledger import read_ledger, totals
from latent_lab.config import NOT_RESULT, ConfigError, EvalConfig
from latent_lab.grading.evaluate import rate
from latent_lab.grading.judges import Asking, Rules
from latent_lab.grading.session import session
from latent_lab.grading.task import Answers
from latent_lab.job import Job
from latent_lab.plans.asking import Asker
from latent_lab.plans.base import PlanError
from latent_lab.plans.labels import (
    Chain,
    FirstError,
    by_rules,
    compared,
    errors_of,
    read_error,
    read_kinds,
    replied_with,
    written,
)
from latent_lab.plans.labels_task import LabelsTask
from latent_lab.plans.measures import steps_as_gold
from latent_lab.problems import DataError, Split, fingerprint
from latent_lab.run import open_run, say_complete

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

UNLABELLED = "no step is labelled as memory or reason; allowed: {allowed}"


def labels(task: LabelsTask, job: Job) -> dict[str, Any]:
    """Do ``task=labels``: see :class:`latent_lab.plans.labels_task.LabelsTask`."""
    judge = job.config.judge
    if isinstance(judge, Asking) and len(judge.names) > 1:
        raise ConfigError("judge", ", ".join(judge.names), "one model judges labels; allowed: votes=1, and no more_models")
    identity = {"label_prompts": " ".join(prompt.sha256 for prompt in task.prompts().values())}
    folder, stored = (of_run if job.config.run else of_dataset)(task, job, identity)
    if stored:  # of several processes the main one alone has judged
        log.info("%s: %s", folder, in_words(stored))
    return stored


def of_run(task: LabelsTask, job: Job, identity: dict[str, str]) -> tuple[Path, dict[str, Any]]:
    """Let the run answer, and judge what it labelled."""
    with session(job, Answers(), identity) as at:
        if at.run.result is None:
            rows = at.solver.graded(at.problems, at.trained.stage.encode(at.problems, at.solver.backbone.tokenizer), quiet=False)
            chains = replied_with(rows)
            if not chains:
                allowed = "runs of stage=planning plan=memory_reason, or that write tags such as [rag]:"
                raise PlanError(f"run: {job.config.run}: {UNLABELLED.format(allowed=allowed)}")
            if at.run.is_main:  # one process alone asks, and pays
                found, judged = judge(task, job.config.judge, chains, at.run.folder, at.solver.reasoner.device)
                as_gold = steps_as_gold(rows) if all("plan" in row for row in rows) else None
                about = {"task": "labels", "run": job.config.run, "split": job.config.split, "accuracy": rate(rows)}
                at.run.samples(judged)
                at.run.finish({**about, "unlabelled": len(rows) - len(chains), "as_gold": as_gold, **found})
        else:
            say_complete(at.run.folder)
    return at.run.folder, at.run.result or {}


def of_dataset(task: LabelsTask, job: Job, identity: dict[str, str]) -> tuple[Path, dict[str, Any]]:
    """Judge what a dataset's own chains are labelled."""
    config: EvalConfig = job.config
    started = time.monotonic()
    problems = config.dataset.load(cast(Split, config.split))[: config.limit]
    chains = written(problems)
    if not chains:
        raise DataError(f"split={config.split}: {UNLABELLED.format(allowed='problems with steps such as [rag]: ...')}")
    folder = Path(config.out) if config.out else Path(config.outputs) / "labels" / job.slug
    options: dict[str, Any] = {"command": job.command, "ignore": NOT_RESULT, "overwrite": config.overwrite}
    with open_run(folder, {**job.plain, "problems": fingerprint(problems), **identity}, **options) as run:
        if run.result is None:
            if isinstance(config.judge, Asking):
                config.judge.check_ready()
            run.track(config.tracker, job_type="eval", group=job.group)
            found, judged = judge(task, config.judge, chains, folder, config.device)
            run.samples(judged)
            about = {"task": "labels", "split": config.split, "unlabelled": len(problems) - len(chains), **found}
            run.finish({**about, "seconds": round(time.monotonic() - started, 3)})
        else:
            say_complete(folder)
    return folder, run.result or {}


def judge(
    task: LabelsTask, judge: Rules | Asking, chains: Sequence[Chain], folder: Path, device: "torch.device | str"
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a judge says of chains: the summary, beside that of the rules, and a row for each chain."""
    rules = {c.id: tuple(map(by_rules, c.steps)) for c in chains}
    said: dict[str, tuple[str, ...]] = rules
    errors: dict[str, FirstError] = {}
    reasons: dict[str, str] = {}
    result: dict[str, Any] = {"judge": judge.names[0], "chains": len(chains)}
    if isinstance(judge, Asking):
        said, errors, reasons = asked(task, judge, chains, folder, device)
        prompts = {name: {"name": prompt.name, "sha256": prompt.sha256} for name, prompt in task.prompts().items()}
        result |= {"prompts": prompts, "show_gold": judge.show_gold, "unreadable": len(reasons)}
    result["labels"] = compared(chains, said)
    if isinstance(judge, Asking):
        result["rules"] = compared([c for c in chains if c.id in said], rules)
        if any(c.is_right is not None for c in chains):
            result["errors"] = errors_of(chains, errors)
    calls = read_ledger(folder)
    return result | ({"calls": totals(calls)} if calls else {}), [
        row(c, said.get(c.id), rules[c.id], errors.get(c.id), reasons.get(c.id)) for c in chains
    ]


def asked(
    task: LabelsTask, judge: Asking, chains: Sequence[Chain], folder: Path, device: "torch.device | str"
) -> tuple[dict[str, tuple[str, ...]], dict[str, FirstError], dict[str, str]]:
    """What a model says each step does, where wrong answers first fail, and why it has nothing readable to say of some."""
    by_id, prompts = {c.id: c for c in chains}, task.prompts()
    wrong = [c for c in chains if c.is_right is False]
    with judge.talking(folder, device) as talk:
        asker = Asker(judge, talk, task.tries)
        said = asker.ask(  # never with the answer: what a step does has nothing to do with it
            {c.id: prompts["labels"].messages(c.case, show_gold=False) for c in chains},
            lambda i, text: read_kinds(text, len(by_id[i].steps)),
        )
        errors = asker.ask(
            {c.id: prompts["errors"].messages(c.case, show_gold=judge.show_gold) for c in wrong},
            lambda i, text: read_error(text, len(by_id[i].steps)),
        )
    is_missing = {c.id for c in chains} - said.keys() | {c.id for c in wrong} - errors.keys()
    return said, errors, {i: reason for i, reason in asker.reasons.items() if i in is_missing}


def row(
    chain: Chain, said: Sequence[str] | None, rules: Sequence[str], error: FirstError | None, unreadable: str | None
) -> dict[str, Any]:
    """A row of ``samples.jsonl``."""
    kinds: Sequence[str | None] = said or [None] * len(chain.steps)
    return {
        "id": chain.id,
        "question": chain.question,
        "gold": chain.gold,
        "answer": chain.answer,
        "correct": chain.is_right,
        "steps": [
            {"text": text, "label": label, "judged": kind, "rules": rule}
            for text, label, kind, rule in zip(chain.steps, chain.labels, kinds, rules, strict=True)
        ],
        "error": {"step": error.step, "kind": error.kind, "reason": error.reason} if error else None,
        "unreadable": unreadable,
    }


def in_words(result: dict[str, Any]) -> str:
    """A result in one line for the terminal."""
    found = result["labels"]

    def shown(score: dict[str, Any]) -> str:
        if score["value"] is None:
            return "none"
        return f"{100 * score['value']:.1f}% [{100 * score['low']:.1f}, {100 * score['high']:.1f}] of {score['steps']}"

    by_label = ", ".join(f"{label} {shown(score)}" for label, score in found["by_label"].items())
    parts = [f"labels that {result['judge']} agrees with: {shown(found['right'])} in {result['chains']} chains ({by_label})"]
    if errors := result.get("errors"):
        kinds = ", ".join(f"{kind} {each['count']}" for kind, each in errors["kinds"].items())
        parts.append(f"first errors of {errors['judged']} wrong answers: {kinds}")
    return "; ".join(parts)
