import json
import math

import pytest
from scipy.stats import binomtest

from latent_lab.grading.statistics import Interval, mean_interval, wilson


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 20), (20, 20), (7, 20), (413, 1_319), (999, 1_000)])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_wilson_agrees_with_scipy(successes, n, confidence):
    published = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    interval = wilson(successes, n, confidence)
    assert (interval.value, interval.n) == (successes / n, n)
    assert interval.low == pytest.approx(published.low, abs=1e-12)
    assert interval.high == pytest.approx(published.high, abs=1e-12)
    assert 0 <= interval.low <= interval.value <= interval.high <= 1


def test_wilson_by_hand():
    # z = 1.959964, z^2 = 3.841459: centre 0.5, half 1.959964 / 1.3841459 * sqrt(0.025 + 0.00960365)
    interval = wilson(5, 10)
    assert interval.low == pytest.approx(0.5 - 0.263407, abs=1e-6)
    assert interval.high == pytest.approx(0.5 + 0.263407, abs=1e-6)
    # No success in n: 0 and z^2 / (n + z^2)
    assert wilson(0, 10).low == 0.0
    assert wilson(0, 10).high == pytest.approx(3.841459 / 13.841459, abs=1e-6)


def test_nothing_observed_is_an_interval_without_numbers_and_still_json():
    nothing = Interval(None, 0, None, None)
    assert wilson(0, 0) == mean_interval([]) == nothing
    assert json.dumps(nothing.as_dict()) == '{"value": null, "n": 0, "low": null, "high": null}'


def test_an_interval_becomes_plain_json():
    assert json.dumps(wilson(2, 2).as_dict()).startswith('{"value": 1.0, "n": 2, "low": 0.34')
    assert set(map(type, mean_interval([0.5, 1.0]).as_dict().values())) == {float, int}


def test_the_interval_of_a_mean_is_close_to_the_normal_one_for_many_values():
    values = [index % 5 / 4 for index in range(1_000)]
    half = 1.959964 * math.sqrt(0.125 / 1_000)
    interval = mean_interval(values)
    assert interval.value == pytest.approx(0.5)
    assert interval.low == pytest.approx(0.5 - half, abs=0.003)
    assert interval.high == pytest.approx(0.5 + half, abs=0.003)


def test_the_interval_of_a_mean_narrows_with_the_confidence():
    values = [0.0, 0.25, 0.5, 1.0, 1.0, 0.75]
    wide, narrow = mean_interval(values, confidence=0.99), mean_interval(values, confidence=0.5)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_the_interval_of_a_mean_depends_on_the_seed_alone():
    values = [0.0, 0.25, 0.5, 1.0, 1.0, 0.75]
    assert mean_interval(values, seed=1) == mean_interval(values, seed=1)
    assert mean_interval(values, seed=1) != mean_interval(values, seed=2)


def test_equal_values_give_an_interval_of_no_width():
    assert mean_interval([0.5]) == Interval(0.5, 1, 0.5, 0.5)
    assert mean_interval([1.0] * 50) == Interval(1.0, 50, 1.0, 1.0)


def test_wrong_arguments_are_answered_with_what_is_allowed():
    with pytest.raises(ValueError, match=r"^successes=3 of n=2: allowed are 0 to n$"):
        wilson(3, 2)
    with pytest.raises(ValueError, match=r"^confidence=95: allowed are levels between 0 and 1, such as 0\.95$"):
        wilson(1, 2, confidence=95)
    with pytest.raises(ValueError, match=r"^confidence=0: "):
        mean_interval([1.0], confidence=0)
    with pytest.raises(ValueError, match=r"^values hold nan: allowed are finite numbers; count what has no value apart$"):
        mean_interval([1.0, float("nan")])
