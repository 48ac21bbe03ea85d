import re

import pytest

from latent_lab.problems.arithmetic import Arithmetic
from latent_lab.problems.mixed import Mixed
from latent_lab.problems.stories import Stories
from latent_lab.report.shortcuts import floors


def test_stories_and_sums_take_turns_and_are_those_of_their_own_data_sets():
    found = Mixed(valid_size=6, seed=3).load("valid")
    assert [problem.id for problem in found] == [f"valid-{i}" for i in range(6)]
    assert [problem.meta["kind"] for problem in found] == ["story", "sum"] * 3
    stories = Stories(max_steps=2, valid_size=3, seed=3).load("valid")
    sums = Arithmetic(digits=[2], probabilities=[1.0], valid_size=3, seed=3).load("valid")
    assert [(p.question, p.steps, p.answer) for p in found[::2]] == [(p.question, p.steps, p.answer) for p in stories]
    assert [(p.question, p.steps, p.answer) for p in found[1::2]] == [(p.question, p.steps, p.answer) for p in sums]


def test_lengths_of_both_can_be_chosen():
    found = Mixed(max_steps=1, digits=[3, 4], size=200).load("train")
    assert {len(problem.steps) for problem in found[::2]} == {1}
    assert {problem.meta["digits"] for problem in found[1::2]} == {3, 4}


def test_adding_all_numbers_solves_every_sum():
    dataset = Mixed(valid_size=40)
    scores = floors(dataset.load("valid")[1::2], [], dataset.shortcuts())
    assert scores["sum_of_all"]["value"] == 1.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_steps": 9}, "max_steps=9: allowed are 1 (min_steps) to 6"),
        ({"digits": []}, "digits=[]: give one or more digit counts from 1 to 20"),
    ],
)
def test_what_a_part_refuses_is_refused(settings, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Mixed(**settings)
