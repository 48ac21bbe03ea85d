import json
import math
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.stats import binomtest
from statsmodels.stats.contingency_tables import mcnemar as published_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import samplesize_proportions_2indep_onetail

from latent_lab.grading.statistics import (
    RIGHT,
    Interval,
    Vote,
    ballots,
    bootstrap,
    cluster_bootstrap,
    g_pass_at_k,
    holm,
    maj_at_k,
    majority,
    mcnemar,
    mean_interval,
    n_to_see,
    n_to_see_unpaired,
    paired_cluster_difference,
    paired_difference,
    pass_at_k,
    pass_power_k,
    sign_flip,
    t_interval,
    t_quantile,
    wilson,
)

# Rates and means


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


def test_the_interval_of_a_mean_stays_what_stored_results_say():
    """Seed and order of draws are part of the promise that the same command gives the same bytes."""
    interval = mean_interval([0.0, 0.25, 0.5, 1.0, 1.0, 0.75])
    assert (interval.low, interval.high) == (0.2916666666666667, 0.875)


def test_wrong_arguments_are_answered_with_what_is_allowed():
    with pytest.raises(ValueError, match=r"^successes=3 of n=2: allowed are 0 to n$"):
        wilson(3, 2)
    with pytest.raises(ValueError, match=r"^confidence=95: allowed are levels between 0 and 1, such as 0\.95$"):
        wilson(1, 2, confidence=95)
    with pytest.raises(ValueError, match=r"^confidence=0: "):
        mean_interval([1.0], confidence=0)
    with pytest.raises(ValueError, match=r"^values hold nan: allowed are finite numbers; count what has no value apart$"):
        mean_interval([1.0, float("nan")])


@pytest.mark.parametrize("degrees", [*range(1, 31), 99, 1000])
def test_quantiles_are_those_of_scipy(degrees):
    for probability in (0.5, 0.6, 0.9, 0.975, 0.995, 0.9999):
        assert t_quantile(probability, degrees) == pytest.approx(stats.t.ppf(probability, degrees), rel=1e-9, abs=1e-12)


def test_the_interval_of_three_seeds_is_that_of_scipy_and_of_the_hand():
    rates = [0.5, 0.6, 0.7]
    interval = t_interval(rates)
    # mean 0.6, standard deviation 0.1, t(0.975, 2) = 4.302653: half 4.302653 * 0.1 / sqrt(3)
    assert (interval.value, interval.n) == (pytest.approx(0.6), 3)
    assert (interval.low, interval.high) == (pytest.approx(0.6 - 0.248414, abs=1e-6), pytest.approx(0.6 + 0.248414, abs=1e-6))
    assert (interval.low, interval.high) == pytest.approx(stats.t.interval(0.95, 2, loc=0.6, scale=stats.sem(rates)))


def test_no_interval_reaches_past_what_a_rate_can_be():
    assert (t_interval([0.9, 1.0]).high, t_interval([0.0, 0.1]).low) == (1.0, 0.0)


def test_one_seed_tells_of_no_spread():
    with pytest.raises(ValueError, match=r"^values=\[0\.5\]: one seed tells of no spread; allowed are two or more$"):
        t_interval([0.5])


# Clusters


def test_the_mean_over_clusters_is_that_of_all_values_and_counts_the_clusters():
    interval = cluster_bootstrap([1, 1, 1, 0], ["a", "a", "a", "b"])
    # Resamples are {a, a}: 1, {a, b}: 3/4, {b, b}: 0
    assert interval == Interval(0.75, 2, 0.0, 1.0)


def test_one_value_a_cluster_is_the_interval_of_a_mean():
    values = [0.0, 0.25, 0.5, 1.0, 1.0, 0.75]
    assert cluster_bootstrap(values, list("fedcba")) == mean_interval(values)


def test_chains_that_only_repeat_each_other_tell_nothing_new():
    """Ten equal answers to each of 40 problems are 40 observations, not 400."""
    rights = [float(i % 3 == 0) for i in range(40)]
    once = mean_interval(rights)
    again = cluster_bootstrap([r for r in rights for _ in range(10)], [str(i) for i in range(40) for _ in range(10)])
    assert again.n == 40
    assert (again.low, again.high) == pytest.approx((once.low, once.high))
    naive = mean_interval([r for r in rights for _ in range(10)])
    assert again.high - again.low > 2.5 * (naive.high - naive.low)


def test_a_cluster_interval_has_the_width_of_the_linearised_ratio():
    """Large samples: the standard error of a ratio of sums is sqrt(sum (y - r m)^2) / sum m."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 6, 400)
    clusters = [str(i) for i, size in enumerate(sizes) for _ in range(size)]
    rate = np.repeat(rng.random(400), sizes)
    values = (rng.random(len(rate)) < rate).astype(float)
    sums = np.array([values[np.array(clusters) == str(i)].sum() for i in range(400)])
    ratio = sums.sum() / sizes.sum()
    half = 1.959964 * math.sqrt(((sums - ratio * sizes) ** 2).sum()) / sizes.sum()
    interval = cluster_bootstrap(values.tolist(), clusters)
    assert interval.value == pytest.approx(ratio)
    assert (interval.low, interval.high) == pytest.approx((ratio - half, ratio + half), abs=0.1 * half)
    assert interval == cluster_bootstrap(values.tolist(), clusters, seed=0)


def test_clusters_and_values_must_be_as_many():
    with pytest.raises(ValueError, match=r"^2 values in 1 clusters: allowed is the name of one cluster for each value$"):
        cluster_bootstrap([1.0, 0.0], ["a"])
    assert cluster_bootstrap([], []) == Interval(None, 0, None, None)


def test_a_statistic_may_be_undefined():
    nothing = bootstrap(3, lambda index: None)
    assert nothing == Interval(None, 3, None, None)
    # Undefined unless all three are there: 6 of 27 resamples, whose statistic is 0 + 1 + 2.
    assert bootstrap(3, lambda index: index.sum() if len(set(index)) == 3 else None) == Interval(3.0, 3, 3.0, 3.0)


# Pairs


@pytest.mark.parametrize(
    ("first", "second"), [(0, 0), (0, 1), (1, 1), (8, 81), (3, 13), (26, 15), (96, 22), (500, 400), (3_000, 3_200)]
)
def test_mcnemar_is_the_exact_binomial_test(first, second):
    p = mcnemar(first, second)
    assert p == mcnemar(second, first)
    assert p == pytest.approx(binomtest(first, first + second).pvalue if first + second else 1.0, rel=1e-9)
    assert p == pytest.approx(published_mcnemar([[0, first], [second, 0]], exact=True).pvalue, rel=1e-9)


@given(st.lists(st.sampled_from([-1, 0, 1]), max_size=60))
def test_the_sign_flip_test_of_one_answer_a_problem_is_mcnemars(differences):
    p = mcnemar(differences.count(-1), differences.count(1))
    assert sign_flip(differences) == pytest.approx(p, rel=1e-9)


@given(st.lists(st.integers(-4, 4), max_size=9))
def test_the_sign_flip_test_counts_the_signs_that_are_as_extreme(differences):
    sums = [
        sum(sign * d for sign, d in zip(signs, differences, strict=True)) for signs in product((-1, 1), repeat=len(differences))
    ]
    share = sum(abs(each) >= abs(sum(differences)) for each in sums) / len(sums)
    assert sign_flip(differences) == pytest.approx(share, rel=1e-9)
    assert sign_flip([-d for d in differences]) == sign_flip(differences)


def test_answers_that_only_repeat_each_other_are_tested_as_one():
    """Four answers right in place of wrong in each of five problems: 20 of 20 chains, but five of five problems."""
    assert sign_flip([4] * 5) == sign_flip([1] * 5) == 2 / 2**5
    assert mcnemar(0, 20) == 2 / 2**20


def test_mcnemar_by_hand():
    assert mcnemar(0, 5) == 2 / 32
    assert mcnemar(1, 4) == 2 * (1 + 5) / 32
    assert mcnemar(3, 3) == 1.0  # the doubled tail is 1.3
    with pytest.raises(ValueError, match=r"^first_only=-1, second_only=2: allowed are counts, 0 and more$"):
        mcnemar(-1, 2)


def test_the_published_study_by_this_test():
    """GSM-Hard: the tool helps; that written chains beat latent ones without it is not shown (reference, section 2.4)."""
    assert mcnemar(8, 81) == pytest.approx(3e-16, rel=0.3)
    assert mcnemar(3, 13) == pytest.approx(0.021, abs=5e-4)
    assert mcnemar(26, 15) == pytest.approx(0.12, abs=5e-3)
    assert mcnemar(96, 22) == pytest.approx(3e-12, rel=0.3)


def test_a_paired_difference_is_second_minus_first_and_keeps_pairs_together():
    first, second = [True, True, False, False] * 25, [True, True, True, False] * 25
    interval = paired_difference(first, second)
    assert (interval.value, interval.n) == (0.25, 100)
    half = 1.959964 * math.sqrt(0.25 * 0.75 / 100)
    assert (interval.low, interval.high) == pytest.approx((0.25 - half, 0.25 + half), abs=0.015)
    backwards = paired_difference(second, first)
    assert (backwards.value, backwards.low, backwards.high) == (-0.25, -interval.high, -interval.low)
    # Equal answers differ in no resample, although each rate is unsure.
    assert paired_difference(first, first) == Interval(0.0, 100, 0.0, 0.0)
    assert paired_difference([], []) == Interval(None, 0, None, None)
    with pytest.raises(ValueError, match=r"^2 scores of the first, 1 of the second: allowed are pairs, one for each problem$"):
        paired_difference([True, False], [True])


def test_with_one_answer_each_the_difference_over_clusters_is_the_paired_one():
    first, second, names = [1, 0, 0, 1, 0, 1.0], [1, 1, 0, 1, 1, 0.0], list("abcdef")
    plain, clustered = paired_difference(first, second), paired_cluster_difference(first, names, second, names)
    assert clustered.n == plain.n == 6
    assert (clustered.value, clustered.low, clustered.high) == pytest.approx((plain.value, plain.low, plain.high))
    order = [3, 1, 5, 0, 2, 4]
    mixed = paired_cluster_difference(first, names, [second[i] for i in order], [names[i] for i in order])
    assert mixed == clustered


def test_systems_with_unequal_numbers_of_chains_are_compared_problem_by_problem():
    first, second = [1, 1, 0, 0], [1, 0, 0]
    interval = paired_cluster_difference(first, ["a", "a", "b", "b"], second, ["a", "b", "b"])
    # All: 1/3 - 1/2; resamples {a, a}: 1 - 1, {b, b}: 0 - 0, {a, b} as observed
    assert (interval.value, interval.n) == (pytest.approx(-1 / 6), 2)
    assert (interval.low, interval.high) == (pytest.approx(-1 / 6), 0.0)
    with pytest.raises(ValueError, match=r"^c was answered by one system only: allowed are the same problems for both$"):
        paired_cluster_difference([1], ["a"], [1, 0], ["a", "c"])


# Families of tests


def test_holm_by_hand():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert list(holm({"z": 0.5, "a": 0.1})) == ["z", "a"]
    assert holm({}) == {}
    with pytest.raises(ValueError, match=r"^p_values hold \{'b': 1\.5\}: allowed are numbers from 0 to 1$"):
        holm({"a": 0.1, "b": 1.5})


@pytest.mark.parametrize("size", [1, 2, 5, 40])
def test_holm_is_that_of_statsmodels(size):
    p_values = (np.random.default_rng(size).random(size).round(2) ** 2).tolist()
    adjusted = holm({str(i): p for i, p in enumerate(p_values)})
    assert list(adjusted.values()) == pytest.approx(list(multipletests(p_values, method="holm")[1]))


@given(st.dictionaries(st.text(max_size=2), st.floats(0, 1)))
def test_holm_only_raises_p_values_and_keeps_their_order(p_values):
    adjusted = holm(p_values)
    assert all(p_values[name] <= adjusted[name] <= min(1.0, len(p_values) * p_values[name] + 1e-12) for name in p_values)
    ranked = sorted(p_values, key=lambda name: p_values[name])
    assert [adjusted[name] for name in ranked] == sorted(adjusted.values())


# Power


def test_the_unpaired_number_is_that_of_statsmodels():
    for first, second in [(0.05, 0.1), (0.5, 0.55), (0.9, 0.2), (0.43, 0.32)]:
        for power, alpha in [(0.8, 0.05), (0.9, 0.01)]:
            published = samplesize_proportions_2indep_onetail(second - first, first, power, alpha=alpha)
            assert n_to_see_unpaired(first, second, power, alpha) == math.ceil(published)


def test_the_paired_number_by_hand():
    # z = 1.959964 and 0.841621: (1.959964 sqrt(0.2) + 0.841621 sqrt(0.2 - 0.01))^2 / 0.01 = 154.1
    assert n_to_see(0.5, 0.6, discordance=0.2) == 155
    assert n_to_see(0.6, 0.5, discordance=0.2) == 155
    # The less they agree, the more it takes; nothing shared is worse than no pairing.
    assert n_to_see(0.5, 0.6, discordance=0.1) < 155 < n_to_see(0.5, 0.6, discordance=0.5)
    assert n_to_see(0.5, 0.6, discordance=0.5) == pytest.approx(n_to_see_unpaired(0.5, 0.6), rel=0.02)


@pytest.mark.parametrize(("first", "second", "discordance"), [(0.3, 0.45, 0.25), (0.08, 0.19, 0.135), (0.6, 0.5, 0.3)])
def test_so_many_problems_show_the_difference_as_often_as_promised(first, second, discordance):
    n = n_to_see(first, second, discordance)
    first_only = (discordance + first - second) / 2
    rng = np.random.default_rng(1)
    drawn = rng.multinomial(n, [first_only, discordance - first_only, 1 - discordance], size=4_000)
    z = (drawn[:, 0] - drawn[:, 1]) / np.sqrt(np.maximum(drawn[:, 0] + drawn[:, 1], 1))
    assert 0.78 < (np.abs(z) > 1.959964).mean() < 0.87  # the test the formula is made for; with few problems it promises less
    exact = [mcnemar(int(a), int(b)) < 0.05 for a, b in drawn[:1_000, :2]]
    assert 0.74 < np.mean(exact) < 0.83  # conservative, as the docstring says


def test_impossible_plans_are_refused():
    with pytest.raises(ValueError, match=r"^p_first=0\.5, p_second=0\.5: no number of problems shows a difference of 0$"):
        n_to_see(0.5, 0.5, 0.1)
    with pytest.raises(ValueError, match=r"^discordance=0\.05: rates 0\.5 and 0\.6 allow shares from 0\.1 to 0\.9$"):
        n_to_see(0.5, 0.6, 0.05)
    with pytest.raises(ValueError, match=r"^discordance=0\.3: rates 0\.05 and 0\.1 allow shares from 0\.05 to 0\.15$"):
        n_to_see(0.05, 0.1, 0.3)
    with pytest.raises(ValueError, match=r"^power=1: allowed are probabilities between 0 and 1$"):
        n_to_see_unpaired(0.5, 0.6, power=1)
    with pytest.raises(ValueError, match=r"^p_second=60: allowed are rates from 0 to 1$"):
        n_to_see_unpaired(0.5, 60)


# Several answers to one problem


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_is_what_enumeration_says(n):
    for c in range(n + 1):
        for k in range(1, n + 1):
            draws = list(combinations([True] * c + [False] * (n - c), k))
            assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws), abs=1e-15)
            assert pass_power_k(n, c, k) == pytest.approx(sum(map(all, draws)) / len(draws), abs=1e-15)
            for share in (0.25, 0.5, 0.6):
                enough = [sum(draw) >= max(share * k, 1) for draw in draws]
                assert g_pass_at_k(n, c, k, share) == pytest.approx(sum(enough) / len(draws), abs=1e-15)
            assert g_pass_at_k(n, c, k, 0.0) == pytest.approx(pass_at_k(n, c, k), abs=1e-15)
            assert g_pass_at_k(n, c, k, 1.0) == pytest.approx(pass_power_k(n, c, k), abs=1e-15)


def test_pass_at_k_of_many_answers_neither_overflows_nor_rounds_away():
    assert pass_at_k(100_000, 1, 50_000) == 0.5
    assert pass_power_k(1_000, 999, 1) == 0.999
    with pytest.raises(ValueError, match=r"^k=5 of n=4: allowed are 1 to n, as answers are drawn without replacement$"):
        pass_at_k(4, 1, 5)
    with pytest.raises(ValueError, match=r"^c=5 right of n=4: allowed are 0 to n$"):
        pass_power_k(4, 5, 1)
    with pytest.raises(ValueError, match=r"^k=1 of n=0: "):
        pass_at_k(0, 0, 1)


def test_the_majority_by_hand():
    assert majority(["7", "8", "07", None, "7.0"]) == Vote("7", votes=3, num_votes=4, tied=("7",))
    assert majority([None, "8"]) == Vote("8", 1, 1, ("8",))
    assert majority([None, None]) is majority([]) is None
    assert majority(["7", "07"], key=str).tied == ("07", "7")


def test_a_tie_is_drawn_without_regard_to_the_order_of_votes():
    assert majority(["3", "1", "2", "1", "3"]).tied == ("1", "3")
    winners = [majority(["3", "1", "2", "1", "3"], seed=seed).answer for seed in range(400)]
    assert winners == [majority(["1", "1", "3", "3", "2"], seed=seed).answer for seed in range(400)]
    assert set(winners) == {"1", "3"}
    assert winners.count("1") / 400 == pytest.approx(0.5, abs=0.1)


def enumerated(answers, gold, k):
    """Accuracy of the majority over all draws of k, each tied leader winning equally often."""
    total = 0.0
    draws = list(combinations(answers, k))
    for draw in draws:
        votes = [answer for answer in draw if answer is not None]
        most = max(map(votes.count, votes), default=0)
        leaders = {answer for answer in votes if votes.count(answer) == most}
        total += (gold in leaders) / max(len(leaders), 1)
    return total / len(draws)


@given(st.lists(st.sampled_from(["1", "2", "3", "4", None]), min_size=1, max_size=9), st.data())
def test_maj_at_k_is_what_enumeration_says(answers, data):
    k = data.draw(st.integers(1, len(answers)))
    assert maj_at_k(answers, "1", k) == pytest.approx(enumerated(answers, "1", k), abs=1e-12)


def test_maj_at_k_by_hand():
    assert maj_at_k(["1", "1", "2"], "1", 1) == pytest.approx(2 / 3)
    assert maj_at_k(["1", "1", "2"], "1", 2) == pytest.approx(2 / 3)  # {1, 1} is right, {1, 2} twice a tie
    assert maj_at_k(["1", "1", "2"], "1", 3) == 1.0
    assert maj_at_k(["1.0", "01", "2"], "1", 3) == 1.0
    assert maj_at_k(["1.0", "01", "2"], "1", 3, key=str) == 0.0
    assert maj_at_k([None, None], "1", 2) == 0.0  # nobody votes, nothing is right
    assert maj_at_k([None, None, "1"], "1", 3) == 1.0
    with pytest.raises(ValueError, match=r"^k=3 of n=2: "):
        maj_at_k(["1", "2"], "1", 3)


def test_maj_at_k_of_64_answers_is_still_exact():
    answers = ["1"] * 20 + [str(i % 30 + 2) for i in range(44)]
    assert maj_at_k(answers, "1", 1) == pytest.approx(20 / 64)
    assert maj_at_k(answers, "1", 64) == 1.0
    rng = np.random.default_rng(0)
    drawn = [majority([answers[i] for i in rng.permutation(64)[:8]], seed=seed).answer == "1" for seed in range(2_000)]
    assert maj_at_k(answers, "1", 8) == pytest.approx(np.mean(drawn), abs=0.03)


def row(answer, is_right):
    return {"answer": answer, "correct": is_right}


@pytest.mark.parametrize(
    ("rows", "worth"),
    [
        ([row("6", True), row("6.0", True), row("7", False)], 1.0),
        ([row("6", True), row("7", False), row("7", False)], 0.0),
        ([row("6", True), row("7", False)], 0.5),
        ([row("6", True), row(None, False), row(None, False)], 1.0),
        ([row(None, False)], 0.0),
    ],
)
def test_a_vote_compares_answers_as_they_are_graded(rows, worth):
    assert maj_at_k(ballots(rows), RIGHT, len(rows), key=str) == worth
