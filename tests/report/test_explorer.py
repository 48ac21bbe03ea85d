"""The explorer's problems say what grading and single edits say."""

import pytest

from latent_lab.job import job
from latent_lab.problems.arithmetic import addition
from latent_lab.report.explorer import examples, is_right
from latent_lab.report.play import Edit, Saying, player
from latent_lab.report.thoughts_page import render
from latent_lab.thoughts.grammar import ADDITION
from tests.tiny import train


@pytest.fixture(scope="module")
def at(tmp_path_factory):
    run = train(tmp_path_factory.mktemp("outputs"), "stage=coconut", "stage.stages=[0,3]", "stage.epochs=[1]")
    reader = Saying("always", lambda thoughts: [("7+5=12 write 2 carry 1", 0.5)] * len(thoughts))
    with player(job("eval", [f"run={run}", "device=cpu", "task=play"]), [reader]) as opened:
        yield opened


def test_each_thought_has_its_step_its_readings_and_its_edits(at):
    problem, donor = addition("one", 47, 85), addition("two", 31, 22)
    (found,) = examples(at, [(problem, donor)], ADDITION)
    plain = at.scene("47 + 85")
    assert (found["id"], found["answer"], found["gold"]) == ("one", plain.answer, "132")
    assert found["right"] is (plain.answer == "132")
    assert found["donor"] == {"question": "31 + 22 =", "answer": at.scene("31 + 22").answer}
    assert [slot["gold"] for slot in found["slots"]] == ["7+5=12 write 2 carry 1", "4+8+1=13 write 3 carry 1", "carry 1 write 1"]
    assert [slot["readings"][0]["right"] for slot in found["slots"]] == [True, False, False]
    for slot in found["slots"]:
        number = slot["slot"]
        assert slot["swapped"]["answer"] == at.scene("47 + 85", [Edit("swap", number, "31 + 22 =")]).answer
        assert slot["zeroed"]["answer"] == at.scene("47 + 85", [Edit("zero", number)]).answer
        assert slot["removed"]["answer"] == at.scene("47 + 85", [Edit("remove", number)]).answer
    assert [slot["swapped"]["expected"] for slot in found["slots"]] == ["123", "52", None]  # 1+2 carries nothing; 3+2 neither
    shown = {"run": "tiny", "task": "thoughts", "split": "test", "n": 1, "kind": "emergent", "accuracy": {"value": 0.0}}
    assert "47 + 85 =" in render(shown, [found], {}, ["x"])


@pytest.mark.parametrize(
    ("text", "step", "right"),
    [
        ("7+5=12 write 2 carry 1", "7+5=12 write 2 carry 1", True),
        ("a 7, b 5, carry_in 0, total 12, write 2, carry_out 1", "7+5=12 write 2 carry 1", True),
        ("a 7, b 4", "7+5=12 write 2 carry 1", False),
        ("carry in 0, write 1", "carry 1 write 1", True),  # the last carry has no carry in: nothing to be wrong about
        ("7+5=12 write 2", "7+5=12 write 2 carry 1", False),
        ("odd 7", "7+5=12 write 2 carry 1", False),
        ("", "7+5=12 write 2 carry 1", False),
        ("", "", True),
    ],
)
def test_a_reading_is_right_as_text_or_field_by_field(text, step, right):
    assert is_right(text, step, ADDITION) is right
