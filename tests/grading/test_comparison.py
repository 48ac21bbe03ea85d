import pytest
from scipy import stats

from latent_lab.grading.comparison import comparison, two_by_two

FIRST = [True] * 5 + [False] * 15
SECOND = [True] * 4 + [False] * 1 + [True] * 7 + [False] * 8


def test_two_ways_make_a_table() -> None:
    assert two_by_two(FIRST, SECOND) == [4, 1, 7, 8]
    assert two_by_two([], []) == [0, 0, 0, 0]


def test_a_comparison_holds_both_rates_their_difference_and_its_test() -> None:
    made = comparison(FIRST, SECOND)
    assert (made["n"], made["table"]) == (20, [4, 1, 7, 8])
    assert (made["first"]["value"], made["second"]["value"]) == (0.25, 0.55)
    assert made["difference"]["value"] == pytest.approx(0.3)
    assert 0 < made["difference"]["low"] < 0.3 < made["difference"]["high"] < 0.6
    assert made["mcnemar_p"] == pytest.approx(stats.binomtest(1, 8).pvalue)


def test_pairs_must_be_pairs() -> None:
    with pytest.raises(ValueError, match="zip"):
        two_by_two([True], [])
