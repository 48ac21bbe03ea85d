from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latent_lab.grading import published
from latent_lab.grading.repair import error_kind, repair

DIAGRAM = "<<3*1=3>>\n<<689566*689566=5395976>>\n<<3+5395976=5395979>>\n### 5395979"
"""The figure of the published study's README."""


def chain(*steps: str) -> str:
    return "\n".join(f"<<{step}>>" for step in steps)


def repaired(*steps: str, question: str = "", answer: str = "", link: str = "last") -> str:
    return repair(chain(*steps), answer, question=question, link=link).answer


def verdicts(*steps: str) -> list[str]:
    return [checked.verdict for checked in repair(chain(*steps), "").steps]


# Links


def test_the_diagram_of_the_study_comes_to_its_value() -> None:
    assert repair(DIAGRAM, "5395979").answer == "475501268359"
    assert published.tool_answer(DIAGRAM, "5395979") == "56.095976"


@pytest.mark.parametrize(
    ("steps", "answer"),
    [
        (("2*4=9", "9*2=18"), "16"),
        # Numbers are replaced whole.
        (("6/2=3", "13+3=16"), "16"),
        (("2+2=5", "15+5=20"), "19"),
        (("2+2=5", "50+1.5+0.5=52"), "52"),
        (("2+2=5", "5.5+1=6.5"), "6.5"),
        (("1+1=2", "2+1/2=2.5", "2.5*4=10"), "10"),
        (("1/4=0.5", ".5*4=2"), "1"),
        # However they are written.
        (("10*90=1,000", "1000+1=1001"), "901"),
        (("10*90=1000", "1,000+1=1001"), "901"),
        (("2+2=5", "5.0+1=6"), "5"),
        (("2+2=5", "005+1=6"), "5"),
        (("2+2=05", "5+1=6"), "5"),
        (("1/5=25%", "25%*100=25"), "20"),
        (("1/5=25%", "25+1=26"), "26"),
        (("1+1=3", "3/10=30%"), "20%"),
        # With their signs.
        (("3-10=-5", "-5*2=-10"), "-14"),
        (("3-10=-5", "20+5=25"), "27"),
        (("3-10=-5", "20-5=15"), "13"),
        (("3-10=-5", "20+-5=15"), "13"),
        (("2+2=5", "-5+10=5"), "6"),
        (("2+2=5", "(-5)*2=-10"), "-8"),
        (("3-10=-5", "2+2=5", "-5+5=0"), "-3"),
        # The latest step that wrote a number counts.
        (("2+2=5", "3+3=5", "5+1=6"), "7"),
        (("2+2=5", "5+1=5", "5+1=6"), "6"),
        (("2+2=5", "1/0=5", "5+1=6"), "6"),
        (("2+2=5", "a=5", "5+1=6"), "6"),
        # What a step really comes to is carried along.
        (("2+2=5", "5+1=6", "6*10=60"), "50"),
        (("10/3=3.33", "3.33*3=10"), "10"),
        (("10/3=3.33", "3.33*2=6.66"), "20/3"),
    ],
)
def test_a_number_that_a_step_wrote_stands_for_what_the_step_comes_to(steps: tuple[str, ...], answer: str) -> None:
    assert repaired(*steps) == answer


def test_plain_equations_are_repaired_too() -> None:
    assert repair("First 2 + 2 = 5.\nThen 5 x 3 = $15.\n### 15", "15").answer == "12"


def test_a_number_of_the_question_is_no_result() -> None:
    steps = ("2+2=5", "5*10=50")
    assert repaired(*steps) == "40"
    assert repaired(*steps, question="There are 5 cows and 1.5 goats.") == "50"
    assert repair(chain(*steps), "50", question="There are 5 cows").num_ambiguous_links == 1
    assert repaired(*steps, question="There are 15 cows") == "40"
    assert repair(chain(*steps), "50", question="There are 15 cows").num_ambiguous_links == 0


def test_a_number_of_the_question_with_another_sign_is_a_result() -> None:
    assert repaired("3-10=-5", "-5*10=-50", question="There are 5 cows") == "-70"
    assert repaired("3-10=-5", "5*10=50", question="There are 5 cows") == "50"


def test_a_link_to_a_right_result_is_not_ambiguous() -> None:
    assert repair(chain("2+3=5", "5*10=50"), "50", question="There are 5 cows").num_ambiguous_links == 0


# The answer


def test_the_answer_is_the_value_of_the_step_that_wrote_it_or_of_the_last() -> None:
    steps = ("2+2=5", "3*3=7", "1+1=2")
    assert repaired(*steps, answer="7", link="final") == "9"
    assert repaired(*steps, answer="$7", link="final") == "9"
    assert repaired(*steps, answer="7 apples", link="final") == "9"
    assert repaired(*steps, answer="5.0", link="final") == "4"
    assert repaired(*steps, answer="8", link="final") == "2"
    assert repaired(*steps, answer="no number", link="final") == "2"
    assert repaired(*steps, answer="7", link="last") == "2"
    assert repaired("2+2=7", "3*3=7", answer="7", link="final") == "9"


@pytest.mark.parametrize("steps", [(), ("1/0=3",), ("2+2=4", "9**9=4"), ("2+2=4", "five=4")])
def test_without_a_step_that_has_a_value_the_answer_stays(steps: tuple[str, ...]) -> None:
    tool = repair(chain(*steps), "4,0")
    assert (tool.answer, tool.tool_used) == ("4,0", False)
    assert repair("no step", None).answer == ""


def test_an_unknown_link_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^link=first: allowed are final, last$"):
        repair("", "", link="first")


@given(st.lists(st.integers(-(10**8), 10**8), min_size=2, max_size=8))
def test_a_chain_without_mistakes_stays_as_it_is(numbers: list[int]) -> None:
    total, steps = numbers[0], []
    for each in numbers[1:]:
        steps.append(f"{total}+{each}={total + each}")
        total += each
    tool = repair(chain(*steps), str(total))
    assert (tool.answer, tool.is_arithmetic_right) == (str(total), True)


@given(st.integers(2, 10**6), st.integers(2, 10**6), st.integers(10**15, 10**16))
def test_a_wrong_intermediate_result_changes_nothing_in_the_end(a: int, b: int, wrong: int) -> None:
    assert repaired(f"{a}*{b}={wrong}", f"{wrong}-{a}=1", "1*2=2") == str(2 * (a * b - a))


# Verdicts


def test_a_step_is_judged_as_it_was_written() -> None:
    assert verdicts("2+2=4", "2+2=5", "5+1=6", "1/0=1", "2=two", "10/3=3.33", "10/3=3.34") == [
        "ok", "wrong", "ok", "invalid", "invalid", "ok", "wrong",
    ]  # fmt: skip
    tool = repair(chain("2+2=5", "5+1=6"), "6")
    assert [checked.value for checked in tool.steps] == [Fraction(4), Fraction(5)]
    assert tool.verdicts == {"ok": 1, "wrong": 1, "invalid": 0}


def test_arithmetic_is_right_if_all_steps_are_and_there_are_some() -> None:
    assert repair(chain("2+2=4"), "4").is_arithmetic_right
    assert not repair(chain("2+2=4", "1/0=3"), "4").is_arithmetic_right
    assert not repair("", "4").is_arithmetic_right


@pytest.mark.parametrize(
    ("answer", "repaired", "arithmetic", "kind"),
    [
        (True, True, True, "none"),
        (True, False, False, "none"),
        (False, True, False, "execution"),
        (False, True, True, "execution"),
        (False, False, True, "planning"),
        (False, False, False, "unclear"),
    ],
)
def test_errors_are_told_apart_without_a_judge(answer: bool, repaired: bool, arithmetic: bool, kind: str) -> None:
    assert error_kind(answer, repaired, arithmetic) == kind


# The published solver


@pytest.mark.parametrize(
    ("steps", "answer"),
    [
        (("6/2=3", "13+3=16"), "16.0"),
        (("2+2=5", "15+5=20"), "18.0"),
        (("2+2=5", "50+1=51"), "5.0"),
        (("2*4=9", "9.5+9=18.5"), "8.0"),
        (("3-10=-5", "20+5=25"), "25.0"),
        (("10**2=100",), None),
        (("007+1=8",), "8.0"),
        (("10 apples*28=2800",), "280.0"),
        (("1/0=3",), "inf"),
        (("-(2+3)=4",), "-5.0"),
        (("*3=4",), None),
        (("=4",), "model"),
        (("5>=4",), "5.0"),
    ],
)
def test_the_published_solver_replaces_pieces_of_numbers(steps: tuple[str, ...], answer: str | None) -> None:
    assert published.tool_answer(chain(*steps), "model") == answer


def test_the_published_tolerance_is_one_at_every_scale_and_one_try_for_both_answers() -> None:
    assert published.is_right("0.4", "1.9", "-1") == (True, True)
    assert published.is_right("100", "102", "99.5") == (False, True)
    assert published.is_right("4", "none", "4") == (False, False)
    assert published.is_right("4", "4", "inf") == (False, False)
    assert published.is_right("4", "4", None) == (False, False)
