import re
from collections import Counter

import pytest

from latent_lab.problems import SPLITS, Problem
from latent_lab.problems.multiplication import Multiplication, multiplication


def number(digits: str) -> int:
    return int(digits.replace(" ", "")[::-1])


def test_a_problem_has_the_published_form():
    assert multiplication("x", 3719, 3349) == Problem(
        "x",
        "9 1 7 3 * 9 4 3 3",
        ("1 7 4 3 3", "+ 0 6 7 8 4 1 ( 1 3 2 2 8 1 )", "+ 0 0 7 5 1 1 1 ( 1 3 9 7 9 2 1 )", "+ 0 0 0 7 5 1 1 1"),
        "1 3 9 4 5 4 2 1",
    )
    assert multiplication("x", 3719, 3349).meta == {"a": 3719, "b": 3349, "digits": 4}


@pytest.mark.parametrize(
    ("a", "b", "row"),
    [
        # Rows of the published file of 4 by 4 digits: a carry into the highest column, and digits that are zero.
        (
            2365,
            4347,
            "5 6 3 2 * 7 4 3 4||5 5 5 6 1 + 0 0 6 4 9 0 ( 5 5 1 1 1 1 ) + 0 0 5 9 0 7 0 ( 5 5 6 0 2 8 0 )"
            " + 0 0 0 0 6 4 9 0 #### 5 5 6 0 8 2 0 1",
        ),
        (
            4511,
            5065,
            "1 1 5 4 * 5 6 0 5||5 5 5 2 2 + 0 6 6 0 7 2 ( 5 1 2 3 9 2 ) + 0 0 0 0 0 0 0 ( 5 1 2 3 9 2 0 )"
            " + 0 0 0 5 5 5 2 2 #### 5 1 2 8 4 8 2 2",
        ),
    ],
)
def test_the_steps_join_to_the_published_chain(a, b, row):
    problem = multiplication("x", a, b)
    assert f"{problem.question}||{' '.join(problem.steps)} #### {problem.answer}" == row


def test_unreversed_numbers_are_written_as_people_do():
    problem = multiplication("x", 12, 34, reverse=False)
    assert (problem.question, problem.steps, problem.answer) == ("1 2 * 3 4", ("0 4 8", "+ 0 3 6 0"), "0 4 0 8")


def test_digits_can_stand_side_by_side():
    spaced, close = multiplication("x", 371, 334), multiplication("x", 371, 334, spaced=False)
    assert close == Problem("x", "173*433", ("4841", "+03111(41621)", "+003111"), "419321")
    assert [text.replace(" ", "") for text in (spaced.question, *spaced.steps)] == [close.question, *close.steps]


def test_the_second_number_can_have_digits_of_its_own():
    assert multiplication("x", 566, 96) == Problem("x", "6 6 5 * 6 9", ("6 9 3 3", "+ 0 4 9 0 5"), "6 3 3 4 5")
    for problem in Multiplication(digits=[3, 4], second_digits=2, size=50).load("test"):
        assert (len(str(problem.meta["a"])), len(str(problem.meta["b"]))) == (problem.meta["digits"], 2)
        assert number(problem.answer) == problem.meta["a"] * problem.meta["b"]
    with pytest.raises(ValueError, match="digits=\\[0\\]"):
        Multiplication(second_digits=0)


def test_one_digit_is_one_step():
    assert multiplication("x", 7, 8) == Problem("x", "7 * 8", ("6 5",), "6 5")


@pytest.mark.parametrize("digits", [1, 2, 3, 5, 9, 20])
def test_every_product_and_sum_is_right_at_any_length(digits):
    for problem in Multiplication(digits=[digits], train_size=30).load("train"):
        a, b = problem.meta["a"], problem.meta["b"]
        assert len(str(a)) == len(str(b)) == digits
        assert number(problem.answer) == a * b
        total = 0
        for place, step in enumerate(problem.steps):
            term, _, running = step.removeprefix("+ ").partition(" ( ")
            total += number(term)
            assert number(term) == a * int(str(b)[::-1][place]) * 10**place
            assert (number(running.removesuffix(" )")) == total) if running else (place in (0, digits - 1))
        assert total == a * b


def test_splits_share_no_product_in_either_order():
    dataset = Multiplication(digits=[1, 2, 3], train_size=4_000)
    train, valid, test = ({tuple(sorted((p.meta["a"], p.meta["b"]))) for p in dataset.load(split)} for split in SPLITS)
    assert valid
    assert test
    assert not train & valid
    assert not train & test
    assert not valid & test


def test_a_problem_depends_on_seed_split_and_index_alone():
    small, large = Multiplication(train_size=10).load("train"), Multiplication(train_size=1_000).load("train")
    assert small == large[:10]
    assert Multiplication().problem("train", 7) == small[7]
    assert Multiplication(seed=1).problem("train", 0) != small[0]
    # Another machine or Python must draw the same problems.
    assert [problem.question for problem in small[:2]] == ["3 1 9 7 * 2 6 2 8", "6 2 3 4 * 3 4 0 9"]


def test_digit_counts_are_drawn_equally():
    counts = Counter(problem.meta["digits"] for problem in Multiplication(digits=[2, 5], size=4_000).load("test"))
    # 4,000 draws: 0.03 is almost four standard errors.
    assert counts[2] / 4_000 == pytest.approx(0.5, abs=0.03)


def test_size_is_that_of_whichever_split_is_loaded():
    assert [len(Multiplication(size=3).load(split)) for split in SPLITS] == [3, 3, 3]


def test_the_same_problems_are_made_once():
    first = Multiplication(digits=[9], size=1_000).load("train")
    again = Multiplication(digits=[9], size=1_000).load("train")
    assert all(one is other for one, other in zip(first, again, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"digits": []}, "digits=[]: give one or more digit counts from 1 to 20"),
        ({"digits": [21]}, "digits=[21]: give one or more digit counts from 1 to 20"),
        ({"size": -1}, "size=-1: allowed are 0 and more"),
    ],
)
def test_a_wrong_option_is_answered_with_what_is_allowed(options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Multiplication(**options)
