"""Scores stand beside their floors; intervals resample whole problems."""

import pytest

from latent_lab.grading.statistics import cluster_bootstrap
from latent_lab.thoughts.scores import auc, gain, score, scores, with_floor


@pytest.mark.parametrize(
    ("value", "floor", "won"), [(1.0, 0.5, 1.0), (0.5, 0.5, 0.0), (0.4, 0.5, -0.2), (0.9, 1.0, None), (None, 0.1, None)]
)
def test_gain(value: float | None, floor: float, won: float | None) -> None:
    assert gain(value, floor) == (None if won is None else pytest.approx(won))


def test_auc_is_the_share_of_pairs_in_order_and_a_tie_is_half_of_one() -> None:
    assert auc([3.0, 1.0, 2.0, 0.0], [True, True, False, False]) == 0.75
    assert auc([1.0, 1.0, 0.0], [True, False, False]) == 0.75
    assert auc([1.0, 1.0], [True, True]) is None


def test_a_score_counts_items_and_problems() -> None:
    made = score([1, 1, 0, 0], ["a", "a", "b", "c"])
    assert (made["value"], made["n"], made["clusters"]) == (0.5, 4, 3)
    assert made["low"] <= 0.5 <= made["high"]


def test_the_floor_is_the_largest_and_the_gain_is_above_it() -> None:
    made = with_floor([1, 1, 1, 0], {"majority": [1, 0, 0, 0], "shuffled": [1, 1, 0, 0]}, list("abcd"))
    assert made["floor"] == 0.5
    assert made["floors"]["majority"]["value"] == 0.25
    assert made["gain"]["value"] == pytest.approx(0.5)
    assert made["gain"]["low"] <= 0.5 <= made["gain"]["high"]


def test_the_interval_is_that_of_the_clustered_bootstrap() -> None:
    hits = [float(i % 3 != 0) for i in range(600)]
    problems = [f"p{i // 3 if i % 7 else i}" for i in range(600)]
    made, slow = score(hits, problems), cluster_bootstrap(hits, problems)
    assert made["value"] == pytest.approx(slow.value)
    assert made["clusters"] == slow.n
    assert (made["low"], made["high"]) == (pytest.approx(slow.low, abs=0.01), pytest.approx(slow.high, abs=0.01))


def test_nothing_has_no_score() -> None:
    assert score([], [])["value"] is None
    assert with_floor([], {"majority": []}, [])["gain"]["value"] is None


def test_scores_of_many_rows_are_those_of_each() -> None:
    rows, ids = [[1, 0, 1, 1], [0, 0, 1, 0]], ["a", "b", "b", "c"]
    assert scores(rows, ids, seed=3) == [score(row, ids, seed=3) for row in rows]
    assert [each["value"] for each in scores([[], []], [])] == [None, None]
