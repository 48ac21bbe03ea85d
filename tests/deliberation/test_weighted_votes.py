"""Weighted votes, worked out by hand; the law that ties them to the plain vote; and weights that would know the gold answer."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latent_lab.config import ConfigError
from latent_lab.deliberation.rivals import VOTE, at_equal_tokens, curves
from latent_lab.deliberation.weights import MOST_DRAWS, draws, weight, weighted_maj_at_k
from latent_lab.grading.statistics import maj_at_k
from latent_lab.job import job
from latent_lab.report.summarize_figure import base, is_weighted

Row = dict[str, Any]


def chain(*answers: str | None, tokens: Sequence[int] = (10, 20, 30, 40), carried: int = 0) -> list[Row]:
    """An attempt an answer, and so many more rows that only carry the last one on."""
    rows = [*answers, *answers[-1:] * carried]
    return [
        {"iteration": k, "answer": answer, "is_carried": k >= len(answers), "correct": answer == "7", "summary_tokens": None,
         "cum_tokens": tokens[min(k, len(answers) - 1)]}
        for k, answer in enumerate(rows)
    ]  # fmt: skip


def test_a_chain_that_agrees_with_itself_weighs_more() -> None:
    assert weight("agreement", chain("5", "7", "7"), 2, 0) == 2 / 3
    assert weight("agreement", chain("5", "7", "7"), 1, 0) == 1 / 2  # only what came until then
    assert weight("agreement", chain("7", "07", "7.0"), 2, 0) == 1.0  # the same answer, however it is written
    assert weight("agreement", chain("5", "5", carried=2), 3, 0) == 1.0  # what was carried on is no attempt
    assert weight("brevity", chain("7"), 0, 40) == 1 / 40


def test_a_heavy_vote_beats_two_light_ones_and_equal_sums_share_the_point() -> None:
    assert weighted_maj_at_k(["7", "5", "5"], [0.75, 0.25, 0.25], "7", 3) == 1.0
    assert weighted_maj_at_k(["7", "5", "5"], [0.5, 0.25, 0.25], "7", 3) == 0.5
    assert weighted_maj_at_k(["7", "5", "5"], [0.3, 0.1, 0.2], "7", 3) == 0.5  # 0.1 + 0.2 is 0.3, for all that floats say
    # Of two: 7 with either 5 wins twice, the two 5s win once.
    assert weighted_maj_at_k(["7", "5", "5"], [0.75, 0.25, 0.25], "7", 2) == pytest.approx(2 / 3)
    assert weighted_maj_at_k([None, "7", None], [1, 1, 1], "7", 1) == pytest.approx(1 / 3)
    assert weighted_maj_at_k([None, None], [1, 1], "7", 1) == 0.0


ANSWERS = st.lists(st.sampled_from(["7", "5", "6", None]), min_size=1, max_size=7)


@given(ANSWERS, st.data())
def test_with_equal_weights_it_is_the_plain_vote(answers: list[str | None], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(answers)))
    same = [0.1] * len(answers)
    assert weighted_maj_at_k(answers, same, "7", k) == pytest.approx(maj_at_k(answers, "7", k, key=str))


@given(ANSWERS, st.data())
def test_it_is_what_all_draws_say_one_by_one(answers: list[str | None], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(answers)))
    tokens = data.draw(st.lists(st.integers(1, 12), min_size=len(answers), max_size=len(answers)))
    won = []
    for drawn in combinations(range(len(answers)), k):
        sums: dict[str, Fraction] = {}
        for i in drawn:
            if (answer := answers[i]) is not None:
                sums[answer] = sums.get(answer, Fraction(0)) + Fraction(1, tokens[i])
        leaders = [answer for answer, total in sums.items() if total == max(sums.values())]
        won.append(Fraction("7" in leaders, max(len(leaders), 1)))
    expected = float(sum(won) / len(won))
    assert weighted_maj_at_k(answers, [1 / each for each in tokens], "7", k) == pytest.approx(expected)


def test_where_there_are_too_many_draws_some_are_taken_and_always_the_same() -> None:
    assert draws(20, 10).shape == (MOST_DRAWS, 20)
    assert set(draws(20, 10).sum(axis=1)) == {10.0}
    answers = ["7"] * 9 + ["5"] * 6 + ["6"] * 5
    exact = maj_at_k(answers, "7", 10)
    assert weighted_maj_at_k(answers, [1.0] * 20, "7", 10) == pytest.approx(exact, abs=0.03)


def rows_of(method: str, chains: Sequence[list[Row]]) -> list[Row]:
    return [row | {"method": method, "id": "a", "chain": n} for n, rows in enumerate(chains) for row in rows]


def test_they_stand_beside_the_plain_vote_at_the_same_tokens() -> None:
    steady, fickle = chain("7", "7", tokens=(10, 20)), [chain("7", "5", tokens=(10, 60)), chain("7", "5", tokens=(10, 60))]
    rows = rows_of("whole", [steady, *fickle]) + rows_of("samples", [chain("7"), chain("5", tokens=(40,))])
    plain, found = curves(rows), curves(rows, ["agreement", "brevity"])
    added = ["whole, then vote by agreement", "whole, then vote by brevity", f"{VOTE} by brevity"]
    assert set(found) - set(plain) == set(added)
    assert {name: found[name] for name in plain} == plain
    three = {name: line[-1] for name, line in found.items() if name.startswith("whole, then")}
    # 7 weighs 1 and 1/20; each 5 weighs 1/2 and 1/60.
    assert {name: point.scores for name, point in three.items()} == {
        "whole, then vote": (0.0,), "whole, then vote by agreement": (0.5,), "whole, then vote by brevity": (1.0,),
    }  # fmt: skip
    assert {point.tokens for point in three.values()} == {3 * 140 / 3}
    assert [point.scores for point in found[VOTE]] == [(0.5,), (0.5,)]
    assert [point.scores for point in found[f"{VOTE} by brevity"]] == [(0.5,), (1.0,)]
    assert set(added) < set(at_equal_tokens(found, 1e9, 0)["recipes"])


def test_a_weighted_vote_is_drawn_as_what_it_is_a_vote_of() -> None:
    assert [is_weighted(name) for name in ("whole", "whole, then vote", "whole, then vote by brevity", VOTE)] == [0, 0, 1, 0]
    assert (base("whole, then vote by brevity"), base(f"{VOTE} by brevity"), base("wait")) == ("whole", VOTE, "wait")
    assert is_weighted(f"{VOTE} by brevity")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("accuracy", "task.weights: given accuracy; it knows the gold answer, which no vote does; allowed: agreement, brevity"),
        (
            "oracle_reward",
            "task.weights: given oracle_reward; it knows the gold answer, which no vote does; allowed: agreement, ",
        ),
        ("length", "task.weights: given length; allowed: agreement, brevity"),
        ("brevity,brevity", "task.weights: given ['brevity', 'brevity']; allowed: agreement, brevity, each once"),
    ],
)
def test_a_weight_that_knows_gold_is_refused_by_that_name(given: str, message: str) -> None:
    with pytest.raises(ConfigError) as wrong:
        job("eval", ["task=summarize", "dataset=stories", f"task.weights=[{given}]"])
    assert str(wrong.value).startswith(message)
