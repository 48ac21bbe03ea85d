"""Labels of steps, memory or reason, held against what somebody says who reads the steps without them: pure functions."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from latent_lab.grading.agreement import cohen_kappa
from latent_lab.grading.judge_prompt import LONGEST_REASON, Case
from latent_lab.grading.statistics import cluster_bootstrap, wilson
from latent_lab.plans.annotation import Unfit, field_of, listed, replied
from latent_lab.plans.base import PlanError
from latent_lab.plans.words import TAG, MemoryReason
from latent_lab.problems import Problem

LABELS = ("memory", "reason")
KINDS = (*LABELS, "unclear")
CONCLUDES = re.compile(r"\b(so|thus|therefore|hence|since|because|conclu\w+|impl(?:y|ies)|follows|means|compar\w+)\b|=", re.I)
"""Words by which the rules know a step of reason."""


@dataclass(frozen=True, slots=True)
class Chain:
    """Steps with their labels, and what they led to."""

    id: str
    question: str
    gold: str
    labels: tuple[str, ...]
    """One of ``LABELS`` for each step."""
    steps: tuple[str, ...]
    """Their texts, without labels."""
    answer: str | None = None
    is_right: bool | None = None
    """Whether the answer is; None where there is none, or none that could be read."""

    @property
    def case(self) -> Case:
        """What a judge is shown: no label."""
        return Case(self.id, self.question, listed(self.steps), self.answer, self.gold)


@dataclass(frozen=True, slots=True)
class FirstError:
    """Where a wrong chain first goes wrong."""

    step: int
    """Counted from 1; 0: the steps are right, and the answer does not follow."""
    kind: str
    """One of ``KINDS``."""
    reason: str


# Chains


def written(problems: Sequence[Problem]) -> list[Chain]:
    """The chains of a dataset whose steps begin with tags such as ``[rag]:``; none of a problem that has no steps."""
    plan = MemoryReason()
    told = [p for p in problems if p.steps]
    return [
        Chain(p.id, p.question, p.answer, tuple(kind for (kind,) in labels), tuple(map(plan.text, p.steps)))
        for p, labels in zip(told, plan.own_labels(told), strict=True)
    ]


def replied_with(rows: Sequence[Mapping[str, Any]]) -> list[Chain]:
    """What a run labelled in its replies, by planning tokens or by tags in the text; rows are those of ``samples.jsonl``."""
    chains = []
    for row in rows:
        steps = announced(row) if "plan" in row else tagged(row["output"])
        if steps:
            labels, texts = zip(*steps, strict=True)
            chains.append(Chain(str(row["id"]), row["question"], str(row["gold"]), labels, texts, row["answer"], row["correct"]))
    return chains


def announced(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Label and text of each step that planning tokens announce as one of ``LABELS``."""
    pairs = zip(row["plan"], row["plan_steps"], strict=True)
    return [(label, text.strip()) for label, text in pairs if label in LABELS and text.strip()]


def tagged(text: str) -> list[tuple[str, str]]:
    """The same of each line that begins with a tag."""
    lines = [line for line in text.split("\n") if TAG.match(line) and TAG.sub("", line, count=1).strip()]
    plan, found = MemoryReason(), []
    for line in lines:
        try:
            ((label,),) = plan.own_labels([Problem("", "", (line,), "")])[0]
        except PlanError:  # a tag that a model made up labels nothing
            continue
        found.append((label, plan.text(line).strip()))
    return found


# Who says what a step does


def by_rules(step: str) -> str:
    """Reason where the step has a word that concludes, or an equation; else memory. A floor, and no judge to believe."""
    return "reason" if CONCLUDES.search(step) else "memory"


def read_kinds(text: str, count: int) -> tuple[str, ...]:
    """What a judge says each of so many steps does; :class:`Unfit` where it does not say so of each."""
    kinds = field_of(text, "kinds")
    said = tuple(kind.strip().casefold() if isinstance(kind, str) else "" for kind in kinds)
    if len(said) != count:
        raise Unfit(f"{len(said)} kinds for {count} steps")
    if wrong := [kind for kind in said if kind not in KINDS]:
        raise Unfit(f"a kind {wrong[0]!r}")
    return said


def read_error(text: str, count: int) -> FirstError:
    """Which of so many steps a judge says is the first wrong one, and how; :class:`Unfit` where it does not."""
    found = replied(text, "step")
    step, kind, reason = found["step"], found.get("kind"), found.get("reason")
    if not isinstance(step, int) or isinstance(step, bool) or not 0 <= step <= count:
        raise Unfit("no number of a step")
    if kind not in KINDS:
        raise Unfit("no kind of error")
    return FirstError(step, kind, " ".join(reason.split())[:LONGEST_REASON] if isinstance(reason, str) else "")


# What it amounts to


def compared(chains: Sequence[Chain], said: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Labels held against what somebody says of the same steps, by the chain's id; intervals and kappa resample whole chains.

    ``right`` is the share of labels that are what is said, ``constant`` that of labels which are the most frequent one.
    """
    steps = [(c.id, *pair) for c in chains if c.id in said for pair in zip(c.labels, said[c.id], strict=True)]
    table = Counter((label, kind) for _, label, kind in steps)
    given = Counter(label for _, label, _ in steps)

    def right(only: str | None = None) -> dict[str, Any]:
        chosen = [step for step in steps if only in (None, step[1])]
        hits = [float(label == kind) for _, label, kind in chosen]
        return {"steps": len(chosen), **cluster_bootstrap(hits, [owner for owner, _, _ in chosen]).as_dict()}

    owners, labels, kinds = ([step[i] for step in steps] for i in range(3))
    return {
        "right": right(),
        "by_label": {label: right(label) for label in LABELS},
        "table": {label: {kind: table[label, kind] for kind in KINDS} for label in LABELS},
        "cohen_kappa": cohen_kappa(labels, kinds, clusters=owners).as_dict(),
        "constant": max(given.values()) / len(steps) if steps else None,
    }


def errors_of(chains: Sequence[Chain], found: Mapping[str, FirstError]) -> dict[str, Any]:
    """What wrong answers failed by first: kinds with intervals over them, also by the label of the step where it happened."""
    wrong = [c for c in chains if c.is_right is False]
    judged = [(c, found[c.id]) for c in wrong if c.id in found]
    kinds = Counter(error.kind for _, error in judged)
    at = Counter((c.labels[error.step - 1] if error.step else "answer", error.kind) for c, error in judged)
    return {
        "wrong": len(wrong),
        "judged": len(judged),
        "kinds": {kind: {"count": kinds[kind], **wilson(kinds[kind], len(judged)).as_dict()} for kind in KINDS},
        "by_label": {label: {kind: at[label, kind] for kind in KINDS} for label in (*LABELS, "answer")},
    }
