"""What ``task=answers`` can be told about grading, and what becomes of it."""

import pytest

from latent_lab.grading.answers import Equivalence, Grading
from latent_lab.grading.task import Answers


def test_every_setting_reaches_the_rules():
    task = Answers(
        extractors=["boxed", "last_number"],
        equivalence="numeric",
        tolerance=1,
        relative_tolerance=0.1,
        tolerance_scale=0.5,
        percent=True,
        accept_truncated=True,
    )
    near = Equivalence("numeric", absolute=1, relative=0.1, scale=0.5, percent=True)
    assert task.grading(["node"]) == Grading(("boxed", "last_number"), near, accept_truncated=True)


def test_unless_told_otherwise_a_run_is_graded_exactly_where_its_stage_says_the_answer_stands():
    assert Answers().grading(["node"]) == Grading(("node",), Equivalence("exact"), accept_truncated=False)
    assert Answers().grading(["node"], "choice") == Grading(("node",), Equivalence("choice"), accept_truncated=False)
    assert Answers(equivalence="exact").grading(["node"], "choice").equivalence == Equivalence("exact")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tolerance": -1.0, "equivalence": "numeric"}, r"^tolerance=-1\.0: allowed are 0 \(the same number\) and more$"),
        ({"relative_tolerance": 0.1}, r"^relative_tolerance=0\.1: the rule exact has no tolerance to set; "),
        ({"tolerance_scale": 0.1}, r"^tolerance_scale=0\.1: allowed are numbers above 0, beside an absolute tolerance "),
        ({"percent": True}, r"^percent=True: "),
        ({"equivalence": "near"}, r"^equivalence=near: allowed are exact, "),
        ({"extractors": ["boxed", "boxed"]}, r"^extractors=boxed, boxed: allowed is each rule once$"),
    ],
)
def test_what_cannot_be_is_said_by_the_name_it_has_here(settings, message):
    with pytest.raises(ValueError, match=message):
        Answers(**settings)
