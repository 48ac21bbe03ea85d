"""Methods compared and chains voting, on a few by hand."""

import pytest

from latent_lab.deliberation.chains import Chain, Iteration
from latent_lab.deliberation.compared import by_problem, compare, corrected, gain, ranking, verdict
from latent_lab.deliberation.vote import scored, votes


def chains(method: str, marks: dict[str, list[str]], gold: str | None = "1") -> list[Chain]:
    """For each problem a chain a run, each mark an iteration: 1 is the right answer, - none, anything else a wrong one."""
    return [
        Chain(
            method,
            f"run{run}",
            problem,
            tuple(Iteration(mark == "1", None if mark == "-" else mark) for mark in word),
            "here",
            gold,
        )
        for problem, words in marks.items()
        for run, word in enumerate(words)
    ]


# Paired


def test_a_gain_counts_what_was_fixed_and_broken() -> None:
    found = gain(chains("m", {"a": ["021", "1 1"], "b": ["110", "001"], "c": ["001", "000"]}), 0)
    assert (found["n"], found["table"], found["fixed"], found["broken"]) == (3, [1, 1, 3, 1], 3, 1)
    assert (found["difference"]["value"], found["difference"]["n"]) == (pytest.approx(2 / 6), 3)
    assert found["mcnemar_p"] == 0.625  # 2 * (1 + 4) / 2^4
    assert found["sign_flip_p"] == 0.5  # by problem +1, 0, +1: both signs alike in half of the cases


def test_differences_by_problem_are_whole_numbers_of_one_unit() -> None:
    first = [(chain, chain.right[-1]) for chain in chains("m", {"a": ["1", "0"], "b": ["0", "0"]})]
    second = [(chain, chain.right[-1]) for chain in chains("n", {"a": ["1", "1", "0"], "b": ["1", "0", "0"]})]
    assert by_problem(first, second) == [1, 2]  # 2/3 - 1/2 and 1/3 - 0, in sixths


def test_methods_are_compared_on_the_problems_both_answered_and_on_the_runs_both_have() -> None:
    first = [(chain, chain.right[-1]) for chain in chains("m", {"a": ["1", "0"], "b": ["0", "0"]})]
    second = [(chain, chain.right[-1]) for chain in chains("n", {"b": ["1"], "c": ["0"]})]
    found = compare(first, second, 0)
    assert (found["n"], found["table"], found["difference"]["value"]) == (1, [0, 0, 1, 0], 1.0)
    other_run = [(Chain("n", "other", "b", (Iteration(True),), "here"), True)]
    assert (compare(first, other_run, 0)["table"], compare(first, other_run, 0)["mcnemar_p"]) == (None, None)
    assert corrected({"x": compare(first, other_run, 0)})["x"]["mcnemar_holm_p"] is None


def test_ps_are_corrected_over_all_comparisons() -> None:
    found = corrected({name: {"mcnemar_p": p, "sign_flip_p": p / 2} for name, p in (("a", 0.01), ("b", 0.04), ("c", 0.03))})
    assert {name: each["mcnemar_holm_p"] for name, each in found.items()} == {"a": 0.03, "b": 0.06, "c": 0.06}
    assert {name: each["sign_flip_holm_p"] for name, each in found.items()} == {"a": 0.015, "b": 0.03, "c": 0.03}


# Ranked


def many(method: str, rights: int, of: int = 20) -> list[Chain]:
    return chains(method, {str(i): ["1" if i < rights else "0"] for i in range(of)})


def test_methods_that_do_not_differ_have_no_ranking() -> None:
    found = ranking({"low": many("low", 10), "high": many("high", 13), "middle": many("middle", 12)}, 0)
    assert found["order"] == ["high", "middle", "low"]
    assert [(each["better"], each["worse"]) for each in found["pairs"]] == [
        ("high", "middle"),
        ("high", "low"),
        ("middle", "low"),
    ]
    assert found["pairs"][1]["sign_flip_p"] == 0.25  # three problems: 2 / 2^3
    assert found["verdict"] == "no pair of the 3 methods differs (smallest p after Holm 0.75): the ranking is not significant"


def test_methods_that_all_differ_have_one() -> None:
    found = ranking({"low": many("low", 0), "high": many("high", 20), "middle": many("middle", 10)}, 0)
    assert found["verdict"] == "all 3 pairs differ after Holm: the ranking is significant throughout"


def test_what_holds_of_a_ranking_is_said_and_what_does_not() -> None:
    found = ranking({"low": many("low", 0), "high": many("high", 20), "almost": many("almost", 19)}, 0)
    assert found["verdict"] == (
        "2 of 3 pairs differ after Holm; high, the first, is ahead of low; no pair among the first 2 (high, almost) differs: "
        "their order is not significant"
    )
    found = ranking({"low": many("low", 0), "high": many("high", 20), "lower": many("lower", 1)}, 0)
    assert found["verdict"] == "2 of 3 pairs differ after Holm; high, the first, is ahead of lower, low"


def test_who_has_more_right_of_other_problems_is_not_said_to_be_ahead() -> None:
    """Of the 20 hard problems both answered, low has all and high none; 80 easy ones, high's alone, put it first."""
    low = chains("low", {str(i): ["1"] for i in range(20)} | {f"other{i}": ["0"] for i in range(20)})
    high = chains("high", {str(i): ["0"] for i in range(20)} | {f"easy{i}": ["1"] for i in range(80)})
    found = ranking({"low": low, "high": high, "apart": chains("apart", {"x": ["0"]})}, 0)
    assert [(each["better"], each["worse"], each["n"]) for each in found["pairs"]] == [("high", "low", 20)]
    assert found["verdict"] == (
        "1 of 1 pairs differ after Holm; high, the first, is ahead of none; on the problems both answered low is ahead of high"
    )


def test_where_there_is_nothing_to_rank_it_says_so() -> None:
    nothing = "nothing to rank: there are no two methods on the same problems"
    assert ranking({"one": many("one", 3)}, 0) == {"order": ["one"], "pairs": [], "verdict": nothing}
    apart = {"one": chains("one", {"a": ["1"]}), "two": chains("two", {"b": ["0"]})}
    assert ranking(apart, 0)["verdict"] == nothing
    assert verdict(["a", "b"], [{"better": "a", "worse": "b", "sign_flip_holm_p": 0.2}]) == (
        "the pair does not differ (smallest p after Holm 0.2): the ranking is not significant"
    )


# Votes


@pytest.mark.parametrize(
    ("answers", "shared", "lost", "won", "first", "half", "most", "tie"),
    [
        ("1123", 1, 1, 1, 1, 1, 0, 0),
        ("1111", 1, 1, 1, 1, 1, 1, 0),
        ("2112", 0.5, 0, 1, 0, 1, 0, 1),
        ("1234", 0.25, 0, 1, 1, 0, 0, 1),
        ("2231", 0, 0, 0, 0, 0, 0, 0),
        ("1---", 1, 1, 1, 1, 0, 0, 0),
        ("----", 0, 0, 0, 0, 0, 0, 0),
    ],
)
def test_a_vote_under_every_rule(
    answers: str, shared: float, lost: float, won: float, first: float, half: float, most: float, tie: float
) -> None:
    found = scored(chains("m", {"a": list(answers)}), 0, True)
    assert found == {
        "shared": shared, "lost": lost, "won": won, "first": first, "half_shared": (half + most) / 2,
        "half_right": half, "most_right": most, "ties": tie, "silent": answers == "----",
    }  # fmt: skip


def test_votes_have_an_interval_over_problems_and_stand_beside_one_chain() -> None:
    (found,) = votes(chains("m", {"a": ["1", "1", "2"], "b": ["1", "2", "3"]}), True, 0)
    assert (found["rule"], found["ties"], found["silent"]) == ("shared", 1, 0)
    assert found["accuracy"] == {"value": pytest.approx(2 / 3), "n": 2, "low": pytest.approx(1 / 3), "high": 1.0}
    assert found["over_one_chain"]["value"] == pytest.approx(2 / 3 - 1 / 2)
    assert found["rules"]["lost"] == 0.5
    assert found["rules"]["won"] == 1.0


def test_without_answers_what_is_right_votes() -> None:
    (found,) = votes(chains("m", {"a": ["1", "1", "2"], "b": ["1", "2", "3"], "c": ["1", "2"]}, gold=None), False, 0)
    assert (found["rule"], found["accuracy"]["value"], found["rules"]) == (
        "half_shared", 0.5, {"half_shared": 0.5, "half_right": pytest.approx(2 / 3), "most_right": pytest.approx(1 / 3)},
    )  # fmt: skip
    assert "ties" not in found
