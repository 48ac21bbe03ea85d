"""Does ``task=annotate``: four rounds of questions about all problems, each answered once, whatever happens in between."""

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from latent_lab.calls.ledger import read_ledger, totals
from latent_lab.config import NOT_RESULT, ConfigError, EvalConfig
from latent_lab.files import write_lines
from latent_lab.grading.answers import Equivalence
from latent_lab.grading.judges import Asking, Talk
from latent_lab.grading.session import trained_config
from latent_lab.grading.statistics import wilson
from latent_lab.job import Job
from latent_lab.plans import annotation
from latent_lab.plans.annotate_task import AnnotateTask
from latent_lab.plans.annotation import KINDS, Step
from latent_lab.plans.asking import Asker
from latent_lab.problems import DataError, Problem, Split, fingerprint, rule_of
from latent_lab.run import open_run, say_complete

log = logging.getLogger(__name__)

PROBLEMS = "problems.jsonl"


def annotate(task: AnnotateTask, job: Job) -> dict[str, Any]:
    """Do ``task=annotate``: see :class:`latent_lab.plans.annotate_task.AnnotateTask`."""
    config: EvalConfig = job.config
    writer = cast(Asking, config.judge)
    if len(writer.names) > 1:
        raise ConfigError("judge", ", ".join(writer.names), "one model writes; allowed: votes=1, and no more_models")
    started = time.monotonic()
    dataset = config.dataset or trained_config(config.run_folder).dataset
    problems = dataset.load(cast(Split, config.split))[: config.limit]
    if not problems:
        raise DataError(f"split={config.split}: the dataset has no problem there; choose another split or dataset")
    folder = Path(config.out) if config.out else Path(config.outputs) / "annotated" / job.slug
    identity = {"problems": fingerprint(problems), "annotation_prompts": annotation.prompts_hash()}
    options: dict[str, Any] = {"command": job.command, "ignore": NOT_RESULT, "overwrite": config.overwrite}
    with open_run(folder, {**job.plain, **identity}, **options) as run:
        if run.result is None:
            writer.check_ready()
            run.track(config.tracker, job_type="eval", group=job.group)
            with writer.talking(folder, config.device) as talk:
                made = Annotator(task, writer, talk, problems, rule_of(dataset))
                made.work()
            rows = made.rows()
            write_lines(folder / PROBLEMS, [record(row, config.split) for row in rows if row["status"] == "kept"])
            run.samples(rows)
            result = {"task": "annotate", "split": config.split, "writer": writer.names[0], **summary(rows)}
            calls = read_ledger(folder)
            result |= {"show_gold": writer.show_gold, **({"calls": totals(calls)} if calls else {})}
            run.finish({**result, "seconds": round(time.monotonic() - started, 3)})
        else:
            say_complete(folder)
    stored = run.result or {}
    left_out = ", ".join(f"{count} {status}" for status, count in stored["left_out"].items() if count)
    log.info("%s: %d of %d problems have a chain%s", folder / PROBLEMS, stored["kept"]["count"], stored["kept"]["n"],
             f"; {left_out}" if left_out else "")  # fmt: skip
    return stored


class Annotator:
    """Problems on their way from question to chain."""

    def __init__(self, task: AnnotateTask, writer: Asking, talk: Talk, problems: Sequence[Problem], rule: str = "exact") -> None:
        self.task, self.writer = task, writer
        self.asker = Asker(writer, talk, task.tries)
        self.equal = Equivalence(rule), Equivalence("numeric")
        """The dataset's rule; and numbers may be written in words of a chat, as in ``18 dollars``."""
        self.problems = {p.id: p for p in problems}
        self.chains: dict[str, tuple[Step, ...]] = {}
        self.answers: dict[str, str] = {}
        """What the chains lead to."""

    def work(self) -> None:
        """Ask everything; :class:`latent_lab.grading.judge.JudgeError` where too few replies come."""
        problems, choices, order = self.problems, self.task.choices, self.task.order
        gold = {i: p.answer if self.writer.show_gold else None for i, p in problems.items()}
        asked = {i: annotation.ask_outline(p.question, gold[i], choices, order) for i, p in problems.items()}
        outlines = self.asker.ask(asked, lambda i, text: annotation.read_outline(text, order))
        facts = self.asker.ask(
            {i: annotation.ask_facts(steps) for i, steps in outlines.items()},
            lambda i, text: annotation.read_facts(text, outlines[i]),
        )
        written = self.asker.ask(
            {i: annotation.ask_chain(problems[i].question, known, gold[i], choices) for i, known in facts.items()},
            lambda i, text: annotation.read_chain(text, facts[i]),
        )
        self.chains = {i: chain for i, (chain, _) in written.items()}
        self.answers = {i: answer for i, (_, answer) in written.items()}
        if self.writer.show_gold:  # the writer says what it was told, so somebody else reads where the chain leads
            self.answers = self.asker.ask(
                {i: annotation.ask_answer(problems[i].question, chain, choices) for i, chain in self.chains.items()},
                lambda _, text: annotation.read_answer(text),
            )

    def rows(self) -> list[dict[str, Any]]:
        """What became of each problem, in their order."""
        return [self._row(p) for p in self.problems.values()]

    def _row(self, problem: Problem) -> dict[str, Any]:
        chain, answer = self.chains.get(problem.id), self.answers.get(problem.id)
        is_right = answer is not None and any(each.same(answer, problem.answer) is True for each in self.equal)
        status = "unfit" if chain is None or answer is None else "kept" if is_right else "contradicting"
        return {
            "id": problem.id,
            "question": problem.question,
            "gold": problem.answer,
            "status": status,
            "reason": self.asker.reasons.get(problem.id) if status == "unfit" else None,
            "answer": answer,
            "steps": [annotation.tagged(step) for step in chain or ()],
        }


def record(row: Mapping[str, Any], split: str) -> dict[str, Any]:
    """A row as a record of ``dataset=file``."""
    return {"id": row["id"], "split": split, "question": row["question"], "steps": row["steps"], "answer": row["gold"]}


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many problems have a chain, why others have none, and how many steps are of each kind."""
    kept = [row for row in rows if row["status"] == "kept"]
    counts = Counter(row["status"] for row in rows)
    steps = [step for row in kept for step in row["steps"]]
    return {
        "kept": {"count": len(kept), **wilson(len(kept), len(rows)).as_dict()},
        "left_out": {status: counts[status] for status in ("unfit", "contradicting")},
        "reasons": dict(sorted(Counter(row["reason"] for row in rows if row["reason"]).items())),
        "steps": {kind: sum(step.startswith(f"[{kind}]:") for step in steps) for kind in KINDS},
    }
