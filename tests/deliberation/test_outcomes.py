"""What becomes of answers, counted by hand."""

from itertools import product

import pytest

from latent_lab.deliberation.behaviours import behaviour, behaviours, counted, kept, runs
from latent_lab.deliberation.chains import Chain, Iteration
from latent_lab.deliberation.choices import CHOICES, choices, chosen
from latent_lab.deliberation.outcomes import CLASSES, classes, lengths, moves, outcome, transitions


def chain(problem: str, *steps: tuple[str | None, bool], run: str = "r", method: str = "m") -> Chain:
    iterations = tuple(Iteration(is_right, answer) for answer, is_right in steps)
    return Chain(method, run, problem, iterations, "here", gold="1")


CHAINS = [
    chain("a", ("2", False), ("1", True)),
    chain("a", ("1", True), ("1", True), run="s"),
    chain("b", ("1", True), (None, False)),
    chain("b", ("3", False), ("3.0", False), run="s"),
    chain("c", (None, False), ("4", False)),
]


@pytest.mark.parametrize(
    ("right", "name"),
    [
        ("111", "always_right"),
        ("000", "always_wrong"),
        ("001", "improved_right"),
        ("011", "improved_right"),
        ("010", "improved_wrong"),
        ("101", "regressed_right"),
        ("110", "regressed_wrong"),
        ("100", "regressed_wrong"),
        ("1", "always_right"),
        ("0", "always_wrong"),
    ],
)
def test_every_chain_has_one_of_six_outcomes(right: str, name: str) -> None:
    assert outcome([mark == "1" for mark in right]) == name


def test_of_two_iterations_a_chain_that_goes_up_and_down_is_impossible() -> None:
    assert {outcome(right) for right in product((True, False), repeat=2)} == set(CLASSES) - {"regressed_right", "improved_wrong"}
    assert {outcome(right) for right in product((True, False), repeat=3)} == set(CLASSES)


def test_outcomes_are_counted_and_their_shares_rest_on_problems() -> None:
    found = classes(CHAINS, 0)
    assert {name: each["count"] for name, each in found.items()} == {
        "always_right": 1, "improved_right": 1, "regressed_right": 0,
        "improved_wrong": 0, "regressed_wrong": 1, "always_wrong": 2,
    }  # fmt: skip
    assert (found["always_wrong"]["value"], found["always_wrong"]["n"]) == (0.4, 3)


def test_moves_between_two_iterations() -> None:
    assert moves(CHAINS, 0, 1) == {"kept_right": 1, "broken": 1, "fixed": 1, "kept_wrong": 2}


def test_a_step_says_what_changed_what_disappeared_and_what_persisted() -> None:
    (step,) = transitions(CHAINS, True, 0)
    # 2 to 1, 1 to nothing, nothing to 4 change; 1 stays, and 3.0 is 3.
    assert (step["changed"], step["disappeared"]) == (3, 1)
    assert step["persistence"]["value"] == 0.5  # of 2, 1, 1, 3
    assert step["persistence_right"]["value"] == 0.5  # of 1, 1
    assert step["persistence_wrong"]["value"] == 0.5  # of 2, 3
    assert "changed" not in transitions(CHAINS, False, 0)[0]


def test_lengths_are_said_where_the_form_tells_them() -> None:
    def told(problem: str, is_cut: bool | None, reasoning: int | None, summary: int | None) -> Chain:
        each = Iteration(False, None, is_cut, reasoning_tokens=reasoning, summary_tokens=summary)
        return Chain("m", "r", problem, (each,), "here")

    found = lengths([told("a", True, 900, 60), told("b", False, 100, 40), told("c", None, 500, None)], 0, 0)
    assert (found["truncated"]["value"], found["truncated"]["n"]) == (0.5, 2)
    assert (found["reasoning_tokens"]["value"], found["summary_tokens"]["value"]) == (500, 50)
    # 100 of 1,000; a problem alone is 60 of 900 or 40 of 100.
    assert found["compression"] == {"value": 0.1, "n": 2, "low": pytest.approx(1 / 15), "high": pytest.approx(0.4)}
    assert lengths(CHAINS, 0, 0) == {}


# Behaviours


@pytest.mark.parametrize(
    ("sentence", "name"),
    [
        ("Wait, that is too large.", "backtracking"),
        ("Let me double-check the sum.", "backtracking"),
        ("Maybe so.", "uncertainty"),
        ("For example, take n = 3.", "example_testing"),
        ("Recall the law of cosines.", "adding_knowledge"),
        ("We need to find all pairs.", "initializing"),
        ("Therefore x is 4.", "deduction"),
        ("Waiters are thorough.", "other"),
        ("x = 4", "other"),
    ],
)
def test_a_sentence_shows_one_behaviour(sentence: str, name: str) -> None:
    assert behaviour(sentence) == name


def test_sentences_end_where_they_do_and_not_inside_a_number() -> None:
    assert counted("So it is 3.5 at least. Wait!\nHmm\n\n") == {"deduction": 1, "backtracking": 1, "uncertainty": 1}


def test_behaviours_are_shares_of_sentences() -> None:
    def wrote(problem: str, text: str | None) -> Chain:
        return Chain("m", "r", problem, (Iteration(False, reasoning=text),), "here")

    found = behaviours([wrote("a", "Wait. So 3. So 4."), wrote("b", "Hmm."), wrote("c", None)], "reasoning", 0, 0)
    assert found is not None
    assert (found["texts"], found["sentences_per_text"]) == (2, 2)
    assert {name: (share["count"], share["value"]) for name, share in found["shares"].items() if share["count"]} == {
        "backtracking": (1, 0.25), "uncertainty": (1, 0.25), "deduction": (2, 0.5),
    }  # fmt: skip
    assert behaviours(CHAINS, "summary", 0, 0) is None


def test_runs_of_a_behaviour_count_once_and_what_shows_none_not_at_all() -> None:
    assert runs("So 3. Thus 4. x = 4. Hence 5. Wait. So 6.") == ["deduction", "backtracking", "deduction"]


def test_a_summary_keeps_some_behaviours_in_some_order() -> None:
    def wrote(problem: str, reasoning: str | None, summary: str | None) -> Chain:
        return Chain("m", "r", problem, (Iteration(False, reasoning=reasoning, summary=summary),), "here")

    whole = "So 3. Thus 4. Maybe. Wait. So 6."  # deduction, uncertainty, backtracking, deduction
    chains = [
        wrote("a", whole, "Wait. So 6."),  # two of three behaviours; the last two of four in a row: 2 * 2 / (4 + 2)
        wrote("b", whole, "x = 6"),  # nothing
        wrote("c", "x = 6", "So 6."),  # nothing to keep
        wrote("d", whole, None),
    ]
    found = kept(chains, 0, 0)
    assert found is not None
    assert (found["texts"], found["covered"]["value"], found["in_order"]["value"]) == (
        2,
        pytest.approx(1 / 3),
        pytest.approx(1 / 3),
    )
    assert kept(chains[2:], 0, 0) is None


# Which answer to take


@pytest.mark.parametrize(
    ("answers", "last_given", "two_alike", "three_alike", "any_right"),
    [
        ("23111", 4, 3, 4, 2),
        ("22222", 4, 1, 2, 4),
        ("1-1-1", 4, 4, 4, 0),
        ("21---", 1, 4, 4, 1),
        ("-----", 4, 4, 4, 4),
        ("1", 0, 0, 0, 0),
    ],
)
def test_every_rule_takes_one_iteration(answers: str, last_given: int, two_alike: int, three_alike: int, any_right: int) -> None:
    one = chain("a", *((None if mark == "-" else mark, mark == "1") for mark in answers))
    wanted = {"last": len(answers) - 1, "last_given": last_given, "two_alike": two_alike, "three_alike": three_alike}
    assert {rule: chosen(one, rule) for rule in CHOICES} == wanted | {"any_right": any_right}


def test_a_choice_has_an_accuracy_and_a_cost() -> None:
    pair = [chain("a", ("1", True), ("1", True), ("2", False)), chain("b", ("3", False), ("1", True), ("1", True))]
    found = choices(pair, True, 0)
    assert {rule: (each["value"], each["iterations"]) for rule, each in found.items()} == {
        "last": (0.5, 3), "last_given": (0.5, 3), "two_alike": (1.0, 2.5), "three_alike": (0.5, 3), "any_right": (1.0, 3),
    }  # fmt: skip
    assert list(choices(pair, False, 0)) == ["last", "any_right"]
