"""Agreement of judges: by hand, by enumeration of pairs, and against statsmodels."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats import inter_rater

from latent_lab.grading.agreement import cohen_kappa, fleiss_kappa, krippendorff_alpha
from latent_lab.grading.statistics import Interval

OBSERVERS = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]
"""Krippendorff's reliability data with missing ratings: 4 observers, 12 units, 5 categories."""
PUBLISHED = [[None if rating == "." else rating for rating in unit] for unit in zip(*OBSERVERS, strict=True)]

NOTHING = (None, None, None)


def numbers(interval):
    return (interval.value, interval.low, interval.high)


def units(judges, categories="abc", **settings):
    return st.lists(st.lists(st.sampled_from(categories), min_size=judges, max_size=judges), **settings)


# Krippendorff's alpha


def test_krippendorff_publishes_this_alpha():
    """The last unit has one rating only. In the other 11 are 40: 9 of category 1, 13, 10, 5 and 3; 32 of them agree.

    Agreeing: 3 + 2 + 4 + 4 + 4 + 0 + 4 + 2 + 4 + 3 + 2. Alpha is 1 - 39 * (40 - 32) / (40^2 - 9^2 - 13^2 - 10^2 - 5^2 - 3^2).
    """
    interval = krippendorff_alpha(PUBLISHED)
    assert interval.value == pytest.approx(1 - 39 * 8 / 1216)
    assert round(interval.value, 3) == 0.743
    assert interval.n == 11
    assert -1 <= interval.low < interval.value < interval.high <= 1


def by_pairs(ratings):
    """Alpha from its definition: the mean disagreement within units over that of all ratings."""
    rated = [unit for unit in ([r for r in unit if r is not None] for unit in ratings) if len(unit) > 1]
    flat = [r for unit in rated for r in unit]
    within = sum(sum(a != b for a, b in permutations(unit, 2)) / (len(unit) - 1) for unit in rated) / len(flat)
    overall = sum(a != b for a, b in permutations(flat, 2)) / (len(flat) * (len(flat) - 1))
    return 1 - within / overall


@settings(max_examples=40, deadline=None)
@given(units(3, ["a", "b", None], min_size=2, max_size=8))
def test_alpha_is_the_disagreement_of_all_pairs(ratings):
    interval = krippendorff_alpha(ratings, num_resamples=1)
    if interval.value is None:
        assert len({r for unit in ratings if sum(r is not None for r in unit) > 1 for r in unit} - {None}) <= 1
    else:
        assert interval.value == pytest.approx(by_pairs(ratings))


def test_alpha_leaves_out_what_cannot_disagree():
    assert krippendorff_alpha([["a", None], ["b", None]]) == krippendorff_alpha([]) == Interval(None, 0, None, None)
    assert numbers(krippendorff_alpha([["a", "a"], ["a", "a"]])) == NOTHING
    assert krippendorff_alpha([["a", "a"], ["b", "b"], ["c", None]]).value == 1.0


# Kappas


def test_cohen_by_hand():
    # Agreed 35 of 50; chance 0.5 * 0.6 + 0.5 * 0.4 = 0.5: (0.7 - 0.5) / 0.5
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    interval = cohen_kappa(first, second)
    assert (interval.value, interval.n) == (pytest.approx(0.4), 50)
    assert cohen_kappa(first, first) == Interval(1.0, 50, 1.0, 1.0)
    assert cohen_kappa(["yes", "no"], ["no", "yes"]).value == -1.0


@settings(max_examples=30, deadline=None)
@given(units(2, min_size=2, max_size=20))
def test_cohen_is_that_of_statsmodels(ratings):
    table = np.zeros((3, 3))
    for a, b in ratings:
        table["abc".index(a), "abc".index(b)] += 1
    value = cohen_kappa([a for a, _ in ratings], [b for _, b in ratings], num_resamples=1).value
    if value is None:
        assert len({r for unit in ratings for r in unit}) == 1
    else:
        assert value == pytest.approx(inter_rater.cohens_kappa(table, return_results=False))


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 5).flatmap(lambda judges: units(judges, min_size=1, max_size=12)))
def test_fleiss_is_that_of_statsmodels(ratings):
    value = fleiss_kappa(ratings, num_resamples=1).value
    if value is None:
        assert len({r for unit in ratings for r in unit}) == 1
    else:
        table = [[unit.count(category) for category in "abc"] for unit in ratings]
        assert value == pytest.approx(inter_rater.fleiss_kappa(table))


def test_fleiss_by_hand():
    # Units agree by 1 and 1/3; shares 5/6 and 1/6: (2/3 - 26/36) / (1 - 26/36)
    assert fleiss_kappa([["a", "a", "a"], ["a", "a", "b"]]).value == pytest.approx(-0.2)


def test_where_all_ratings_are_the_same_no_kappa_is_defined():
    assert numbers(cohen_kappa(["a", "a"], ["a", "a"])) == NOTHING
    assert numbers(fleiss_kappa([["a", "a"], ["a", "a"]])) == NOTHING
    assert numbers(cohen_kappa([], [])) == numbers(fleiss_kappa([])) == NOTHING


# Intervals


def test_a_kappa_has_the_interval_of_its_published_variance():
    """Large samples: the bootstrap agrees with statsmodels' asymptotic standard error."""
    first = ["yes"] * 250 + ["no"] * 250
    second = ["yes"] * 200 + ["no"] * 50 + ["yes"] * 100 + ["no"] * 150
    published = inter_rater.cohens_kappa(np.array([[200, 50], [100, 150]]))
    interval = cohen_kappa(first, second)
    assert (interval.low, interval.high) == pytest.approx((published.kappa_low, published.kappa_upp), abs=0.01)
    assert cohen_kappa(first, second, seed=1) != interval == cohen_kappa(first, second)


def test_ratings_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match=r"^2 ratings by the first, 1 by the second: allowed is one by each of every unit$"):
        cohen_kappa(["a", "b"], ["a"])
    with pytest.raises(ValueError, match=r"^a rating is None: this kappa knows no missing ratings; leave the unit out, or take "):
        cohen_kappa(["a", None], ["a", "b"])
    with pytest.raises(ValueError, match=r"^units have 1, 2 ratings: allowed are equally many, 2 or more; krippendorff_alpha "):
        fleiss_kappa([["a", "a"], ["a"]])
    with pytest.raises(ValueError, match=r"^a rating is None: "):
        fleiss_kappa([["a", None]])
