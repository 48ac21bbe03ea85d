"""What ``task=answers`` can be told about grading, and what becomes of it."""

import json
from pathlib import Path

import pytest

from latent_lab.grading.answers import Equivalence, Grading
from latent_lab.grading.session import session
from latent_lab.grading.task import Answers
from latent_lab.job import job
from latent_lab.run import accelerator
from latent_lab.stages.course import StageCourse
from tests.tiny import MODEL, evaluate, result, train


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


STRATEGY = [{"question": f"Is {i} even?", "answer": i % 3 == 0} for i in range(30)]
COMMON = [{"question": "Where?", "choices": {"label": ["A", "B"], "text": ["sea", "bank"]}, "answerKey": "B"}]


def test_a_dataset_says_how_its_answers_are_compared_in_training_and_later(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / f"{split}.json").write_text(json.dumps(STRATEGY))
    (tmp_path / "common.json").write_text(json.dumps(COMMON))
    given = [*MODEL, "stage=no_cot", "dataset=strategyqa", f"dataset.path={tmp_path}", "stage.epochs=[1]", "device=cpu"]
    run = train(tmp_path, *given, "name=mine", base=())
    no = sum(not row["answer"] for row in STRATEGY) / 30
    assert evaluate(run)["floors"]["majority"]["value"] == no  # always saying no is right so often
    assert result(run)["unscored"]["not_comparable"] == 0
    config = job("train", given).config
    problems = config.dataset.load("train")
    with accelerator("cpu", "fp32") as at:
        course = StageCourse(config, at, config.model.load(problems), problems, problems)
        assert course.solver(0).rules == Grading(("marker",), Equivalence("yes_no"))
    for settings, rule in (
        ([], "yes_no"),
        (["dataset=commonsenseqa", f"dataset.path={tmp_path / 'common.json'}"], "choice"),
        (["task.equivalence=exact"], "exact"),
    ):
        asked = job("eval", [f"run={run}", "device=cpu", f"out={tmp_path / rule}", *settings])
        with session(asked, asked.config.task) as opened:
            assert opened.solver.rules.equivalence == Equivalence(rule)
