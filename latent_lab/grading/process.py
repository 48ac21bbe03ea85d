"""What became of the chains that were written, where a dataset can tell: it has ``processes`` and names one for each reply."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from latent_lab.grading.answers import TOO_LONG
from latent_lab.grading.statistics import wilson
from latent_lab.problems import Problem
from latent_lab.sequences import ANSWER_NODE, ANSWER_PREFIX

if TYPE_CHECKING:
    from latent_lab.stages.base import Stage

MARKS = (ANSWER_PREFIX.strip(), ANSWER_NODE)
"""What stands between a chain and its answer."""


def processes(
    dataset: Any, layout: "Stage", stage: int, problems: Sequence[Problem], rows: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """``{"process": ...}``: how often each process occurs, as a share of all rows; empty where the dataset has none.

    It is noted in each row, too, as ``process``; None where the problem was not asked, as it is too long.
    """
    if not hasattr(dataset, "processes"):
        return {}
    for problem, row in zip(problems, rows, strict=True):
        left_out = thought_of(layout, stage, row)
        asked = row["reason"] != TOO_LONG
        row["process"] = dataset.process(problem, chain_of(row), row["correct"] is True, left_out) if asked else None
    found = [row["process"] for row in rows]
    return {"process": {name: wilson(found.count(name), len(rows)).as_dict() for name in dataset.processes}}


def chain_of(row: dict[str, Any]) -> str:
    """What a graded reply says before its answer. One node without its mark is an answer: the mark stood in the prompt."""
    text: str = row["output"]
    if places := [text.index(mark) for mark in MARKS if mark in text]:
        return text[: min(places)]
    return "" if row["extractor"] == "node" else text


def thought_of(layout: "Stage", stage: int, row: dict[str, Any]) -> str | None:
    """Which steps the model need not write at a stage: the ``first`` or the ``last`` ones, which it was taught to leave out.

    With slots it leaves them out where it thinks; asked without a single one it has to write them all.
    """
    if stage == 0 or (layout.has_slots and not row["thoughts"]):
        return None
    return "last" if layout.writes_first() else "first"
