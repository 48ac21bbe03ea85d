"""What a tool makes of a run's answers: the chain repaired afterwards, or its results computed while the model writes.

Beside every graded row stand the answers with a tool; from the repair comes, without a judge, whether a wrong answer is one of
planning or of execution (:func:`latent_lab.grading.repair.error_kind`).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from latent_lab.grading.answers import Grading
from latent_lab.grading.arithmetic import numbers_in
from latent_lab.grading.calculator import Vocabulary
from latent_lab.grading.comparison import comparison
from latent_lab.grading.evaluate import Solver
from latent_lab.grading.repair import KINDS, repair
from latent_lab.grading.repair import error_kind as kind_of
from latent_lab.grading.statistics import wilson
from latent_lab.problems import Problem
from latent_lab.sequences import Encoded

ALONE = "none"
"""The way to answer without a tool."""
KEPT = ("output", "answer", "status", "reason", "correct", "truncated", "tokens")
"""What is kept of the answers that were written with the calculator."""


def add_tools(
    tools: Sequence[str], rows: Sequence[dict[str, Any]], solver: Solver, problems: Sequence[Problem], encoded: Sequence[Encoded]
) -> None:
    """Give each graded row a column for each tool, what its answer fails by, and the size of its operands; changes ``rows``.

    ``encoded`` are the same problems; every process of a job must take part.
    """
    if "calculator" in tools:
        calculating = replace(solver, calculator=Vocabulary(solver.backbone.tokenizer))
        for row, other in zip(rows, calculating.graded(problems, encoded, quiet=False), strict=True):
            row["calculator"] = {key: other[key] for key in KEPT}
    for row in rows:
        repaired = repaired_answer(row, solver.rules)
        if "repair" in tools:
            row["repair"] = {key: value for key, value in repaired.items() if key != "error"}
        row["error"] = repaired["error"]
        row["operand_digits"] = max((len(str(int(abs(value)))) for value in numbers_in(row["question"])), default=0)


def repaired_answer(row: dict[str, Any], grading: Grading) -> dict[str, Any]:
    """A row's answer once its chain is computed again, whether that is right, and what the row's own answer fails by.

    A chain that was cut off stays unscored: nobody knows which step would have been the last. Nothing can be said of an answer
    that is unscored, but what the repaired one is worth.
    """
    repaired = repair(row["output"], row["answer"], question=row["question"])
    is_cut = row["truncated"] and not grading.accept_truncated
    correct = grading.equivalence.same(repaired.answer, row["gold"]) if repaired.answer and not is_cut else None
    error = kind_of(row["correct"] is True, correct is True, repaired.is_arithmetic_right)
    return {
        "answer": repaired.answer or None,
        "correct": correct,
        "is_used": repaired.tool_used,
        "steps": repaired.verdicts,
        "ambiguous_links": repaired.num_ambiguous_links,
        "error": "unscored" if row["correct"] is None else error,
    }


def is_right(row: dict[str, Any], way: str) -> bool:
    """Whether a row's answer is right, without a tool (``none``) or with one."""
    return (row if way == ALONE else row[way])["correct"] is True


def with_tools(tools: Sequence[str], rows: Sequence[dict[str, Any]], seed: int) -> dict[str, Any]:
    """What rows with tools amount to: each tool beside none, and what the answers without a tool fail by."""
    alone = [is_right(row, ALONE) for row in rows]
    return {
        "tools": {tool: comparison(alone, [is_right(row, tool) for row in rows], seed) for tool in tools},
        "errors": errors(rows),
        "steps_written": dict(verdicts(rows)) if "repair" in tools else None,
    }


def errors(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How many answers fail by what, each share with its interval."""
    counts = Counter(row["error"] for row in rows)
    return {kind: {"count": counts[kind], **wilson(counts[kind], len(rows)).as_dict()} for kind in (*KINDS, "unscored")}


def verdicts(rows: Iterable[dict[str, Any]]) -> Counter[str]:
    """How many written steps are right, wrong, or no arithmetic."""
    counts = Counter[str]()
    for row in rows:
        counts.update(row["repair"]["steps"])
    return counts
