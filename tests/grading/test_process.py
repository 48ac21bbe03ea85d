"""Processes in graded rows: which chain is read, what may be left out, and that only datasets that can tell have them."""

from typing import Any

import pytest

from latent_lab.grading.process import chain_of, processes, thought_of
from latent_lab.problems import Problem
from latent_lab.problems.arithmetic import Arithmetic
from latent_lab.problems.prosqa import ProsQA
from latent_lab.stages.base import Stage
from latent_lab.stages.curriculum import Curriculum
from latent_lab.stages.icot import ICoT

META = {"idx_to_symbol": ["Tom", "fompus", "lempus"], "edges": [[0, 1], [1, 2]], "root": 0, "target": 2}
PROBLEM = Problem("x", "?", (), "Tom is a lempus.", META)


def row(
    output: str, *, correct: bool = True, thoughts: int = 0, reason: str | None = None, rule: str = "marker"
) -> dict[str, Any]:
    return {"output": output, "correct": correct, "thoughts": thoughts, "reason": reason, "extractor": rule}


def test_the_chain_is_what_stands_before_the_answers_mark() -> None:
    assert chain_of(row("Tom is a fompus.\n### Tom is a lempus.")) == "Tom is a fompus.\n"
    assert chain_of(row("### Tom is a lempus.")) == ""
    assert chain_of(row("Tom is a fompus.\n")) == "Tom is a fompus.\n"
    assert chain_of(row("9 14 [A] 14", rule="node")) == "9 14 "
    assert chain_of(row("14", rule="node")) == ""


@pytest.mark.parametrize(
    ("layout", "stage", "thoughts", "left_out"),
    [
        (Curriculum(kind="cot", stages=[0]), 0, 0, None),
        (Curriculum(stages=[2]), 2, 2, "first"),
        (Curriculum(stages=[2]), 2, 0, None),
        (Curriculum(kind="no_thoughts", stages=[2]), 2, 0, "first"),
        (Curriculum(stages=[2], latents_from="end"), 2, 2, "last"),
        (ICoT(), 5, 0, "first"),
        (ICoT(), 0, 0, None),
    ],
)
def test_steps_may_be_left_out_where_the_model_was_taught_to(
    layout: Stage, stage: int, thoughts: int, left_out: str | None
) -> None:
    assert thought_of(layout, stage, row("", thoughts=thoughts)) == left_out


def test_rows_are_named_and_counted() -> None:
    rows = [
        row("Tom is a fompus.\nEvery fompus is a lempus.\n### Tom is a lempus.", thoughts=1),
        row("Every fompus is a lempus.\n### Tom is a lempus.", thoughts=1),
        row("Every fompus is a lempus.\n### Tom is a lempus."),
        row("### Tom is a lempus.", correct=False),
        row("", correct=False, reason="too_long"),
    ]
    found = processes(ProsQA(), Curriculum(stages=[1]), 1, [PROBLEM] * 5, rows)["process"]
    names = ["correct_path", "correct_path", "hallucination", "incorrect_label", None]
    assert [each["process"] for each in rows] == names
    assert {name: share["value"] for name, share in found.items()} == {
        "correct_path": 0.4,
        "longer_path": 0.0,
        "wrong_target": 0.0,
        "hallucination": 0.2,
        "correct_label": 0.0,
        "incorrect_label": 0.2,
    }
    assert {share["n"] for share in found.values()} == {5}
    assert [round(found["correct_path"][end], 4) for end in ("low", "high")] == [0.1176, 0.7693]


def test_a_dataset_that_cannot_tell_has_none() -> None:
    rows = [row("### 3")]
    assert processes(Arithmetic(), Curriculum(stages=[1]), 1, [PROBLEM], rows) == {}
    assert "process" not in rows[0]
