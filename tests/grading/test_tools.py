"""What a tool makes of a graded row: the repaired answer, its grade, and what the row's own answer failed by."""

from typing import Any

import pytest

from latent_lab.grading.answers import Equivalence, Grading
from latent_lab.grading.evaluate import Reply, grade
from latent_lab.grading.tools import add_tools, errors, is_right, repaired_answer, with_tools
from latent_lab.problems import Problem

EXACT = Grading(("marker",))


def row(output: str, gold: str = "72", *, stopped: bool = True, grading: Grading = EXACT) -> dict[str, Any]:
    problem = Problem("a", "Tom has 12 bags of 3, twice.", ("<<12*3=36>>", "<<36*2=72>>"), gold)
    return grade(problem, Reply("a", output, 9, 0, stopped), grading)


@pytest.mark.parametrize(
    ("output", "answer", "correct", "error"),
    [
        ("<<12*3=36>>\n<<36*2=72>>\n### 72", "72", True, "none"),
        ("<<12*3=35>>\n<<35*2=70>>\n### 70", "72", True, "execution"),
        ("<<12*3=36>>\n<<36*2=70>>\n### 70", "72", True, "execution"),
        ("<<12+3=15>>\n<<15*2=30>>\n### 30", "30", False, "planning"),
        ("<<12+3=14>>\n<<14*2=28>>\n### 28", "30", False, "unclear"),
        ("### 70", "70", False, "unclear"),
        ("<<12*x=36>>\n### 36", "36", False, "unclear"),
        ("<<12*3=36>>\n<<36*2=72>>\nso many", "72", True, "unscored"),
    ],
)
def test_a_chain_is_repaired_graded_and_its_failure_named(output: str, answer: str, correct: bool, error: str) -> None:
    repaired = repaired_answer(row(output), EXACT)
    assert (repaired["answer"], repaired["correct"], repaired["error"]) == (answer, correct, error)


def test_a_chain_that_was_cut_off_stays_unscored_unless_such_are_accepted() -> None:
    cut = "<<12*3=35>>\n<<35*2=70>>\n### 7"
    assert repaired_answer(row(cut, stopped=False), EXACT)["correct"] is None
    lenient = Grading(("marker",), accept_truncated=True)
    assert repaired_answer(row(cut, stopped=False, grading=lenient), lenient)["correct"] is True


def test_the_repaired_answer_is_held_against_gold_by_the_same_rule() -> None:
    third = row("<<1/3=0.3>>\n### 0.3", "0.333")
    assert repaired_answer(third, EXACT)["answer"] == "1/3"
    assert repaired_answer(third, EXACT)["correct"] is False
    near = Grading(("marker",), Equivalence("numeric", relative=0.01))
    assert repaired_answer(third, near)["correct"] is True


def test_rows_gain_a_column_for_each_tool_and_counts_that_add_up() -> None:
    texts = ["<<12*3=36>>\n<<36*2=72>>\n### 72", "<<12*3=35>>\n<<35*2=70>>\n### 70", "<<12+3=15>>\n### 15", "nothing"]
    rows = [row(text) for text in texts]

    class Rules:
        rules = EXACT

    add_tools(["repair"], rows, Rules(), [], [])  # type: ignore[arg-type]  # only the calculator asks the model again
    assert [is_right(each, "none") for each in rows] == [True, False, False, False]
    assert [is_right(each, "repair") for each in rows] == [True, True, False, False]
    assert [each["operand_digits"] for each in rows] == [2] * 4
    found = with_tools(["repair"], rows, seed=0)
    assert found["tools"]["repair"]["table"] == [1, 0, 1, 2]
    assert {kind: each["count"] for kind, each in errors(rows).items()} == {
        "none": 1,
        "execution": 1,
        "planning": 1,
        "unclear": 0,
        "unscored": 1,
    }
    assert found["steps_written"] == {"ok": 4, "wrong": 1, "invalid": 0}
