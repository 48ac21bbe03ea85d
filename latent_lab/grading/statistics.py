"""How sure one can be of a rate, a mean or a difference: intervals with the n they rest on, tests, power, and sampled votes.

Intervals and tests take problems for what varies. Where a problem has several answers (chains, seeds) these are no independent
observations: whole problems are resampled (Miller 2024, arXiv 2411.00640).
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from random import Random
from statistics import NormalDist, fmean
from typing import TYPE_CHECKING, Any

from latent_lab.grading.answers import normalise

if TYPE_CHECKING:
    import numpy as np

RESAMPLES = 2_000
"""Bootstrap resamples of an interval."""
RIGHT = "right"
"""What :func:`ballots` call every right answer; no other begins like it."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate from ``n`` independent observations with its confidence interval.

    The three numbers are None where ``n`` is 0, and where the observations leave the estimate undefined.
    """

    value: float | None
    n: int
    low: float | None
    high: float | None

    def as_dict(self) -> dict[str, float | int | None]:
        """Return the fields as standard JSON can hold them."""
        return asdict(self)


# Rates and means


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Return a success rate with its Wilson score interval (Wilson 1927, without continuity correction)."""
    _check_confidence(confidence)
    if not 0 <= successes <= n:
        raise ValueError(f"successes={successes} of n={n}: allowed are 0 to n")
    if n == 0:
        return Interval(None, 0, None, None)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate = successes / n
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    # Exact at the ends, where centre and half cancel but for rounding.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Interval(rate, n, low, high)


def mean_interval(values: Sequence[float], confidence: float = 0.95, num_resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Return a mean with its bootstrap percentile interval; the same values in the same order give the same interval.

    The interval never reaches past the values seen: equal values, or a single one, give one of no width.
    """
    _check_finite(values)
    import numpy as np

    observed = np.asarray(values, dtype=np.float64)
    return bootstrap(len(observed), lambda index: observed[index].mean(), confidence, num_resamples, seed)


def t_interval(values: Sequence[float], confidence: float = 0.95, *, least: float = 0.0) -> Interval:
    """The mean of two or more rates with its Student t-interval, cut off at ``least`` (-1 for differences of rates) and 1.

    Of seeds' accuracies it says where the mean over all seeds may lie, the problems staying the same.
    """
    _check_confidence(confidence)
    if len(values) < 2:
        raise ValueError(f"values={list(values)}: one seed tells of no spread; allowed are two or more")
    mean, n = fmean(values), len(values)
    variance = sum((value - mean) ** 2 for value in values) / (n - 1)
    half = t_quantile((1 + confidence) / 2, n - 1) * math.sqrt(variance / n)
    return Interval(mean, n, max(least, mean - half), min(1.0, mean + half))


def t_quantile(probability: float, degrees: int) -> float:
    """The t that Student's distribution with so many degrees of freedom stays below with a probability of 1/2 to below 1.

    The distribution has a closed form in the angle whose tangent is t / sqrt(degrees) (Abramowitz and Stegun, 26.7.3 and 26.7.4);
    the angle is found by bisection.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, degrees) < 2 * probability - 1 else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


def _within(angle: float, degrees: int) -> float:
    """The probability that |t| is less than sqrt(degrees) * tan(angle)."""
    sine, cosine = math.sin(angle), math.cos(angle)
    is_odd = degrees % 2
    term, total = (cosine, 0.0) if is_odd else (1.0, 0.0)
    for k in range(1 + is_odd, degrees, 2):  # each term is the one before times cos^2 * k / (k + 1)
        total += term
        term *= cosine**2 * k / (k + 1)
    return 2 / math.pi * (angle + sine * total) if is_odd else sine * total


def cluster_bootstrap(
    values: Sequence[float], clusters: Sequence[str], confidence: float = 0.95, num_resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return the mean of all values, with an interval that resamples whole clusters; ``n`` is the number of clusters.

    ``clusters[i]`` names what ``values[i]`` belongs to, such as its problem. The estimate is a ratio of two sums over clusters:
    of values, and of their number. A cluster weighs as much as it has values. With one value in each it is ``mean_interval``.
    """
    sums, sizes = _per_cluster(values, clusters, list(dict.fromkeys(clusters)))
    return bootstrap(len(sums), lambda index: sums[index].sum() / sizes[index].sum(), confidence, num_resamples, seed)


def bootstrap(
    n: int,
    statistic: "Callable[[np.ndarray], float | None]",
    confidence: float = 0.95,
    num_resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return a statistic of ``n`` observations with its bootstrap percentile interval.

    ``statistic`` takes the indices ``[n]`` of the observations that count, and returns None where it is undefined. Resamples that
    leave it undefined are left out.
    """
    _check_confidence(confidence)
    if n == 0:
        return Interval(None, 0, None, None)
    import numpy as np

    if (value := statistic(np.arange(n))) is None:
        return Interval(None, n, None, None)
    rng = np.random.default_rng(seed)
    drawn = [statistic(rng.integers(0, n, n)) for _ in range(num_resamples)]
    tail = (1 - confidence) / 2
    low, high = np.quantile([one for one in drawn if one is not None] or [value], [tail, 1 - tail])
    return Interval(float(value), n, float(low), float(high))


# Two systems on the same problems


def mcnemar(first_only: int, second_only: int) -> float:
    """Return the exact two-sided p-value that two systems are right equally often (McNemar 1947, binomial form).

    ``first_only`` counts the problems only the first got right. Given their sum n, each would be Binomial(n, 1/2); the smaller
    tail is doubled. Without a problem on which they differ, p is 1.
    """
    if first_only < 0 or second_only < 0:
        raise ValueError(f"first_only={first_only}, second_only={second_only}: allowed are counts, 0 and more")
    n = first_only + second_only
    tail = ways = 1
    for k in range(min(first_only, second_only)):
        ways = ways * (n - k) // (k + 1)  # n over k + 1
        tail += ways
    return min(1.0, 2 * tail / 2**n)


def sign_flip(differences: Sequence[int]) -> float:
    """Return the exact two-sided p-value that two systems are right equally often where each answered a problem several times.

    Item i says how many answers to problem i the second system has right beyond the first. Were the two alike, each item could as
    well bear the other sign: p is the share of all choices of signs that bring the sum at least as far from 0. Answers to one
    problem count together, as they are not independent; with one answer to each problem this is :func:`mcnemar`.
    """
    import numpy as np

    sizes = [abs(item) for item in differences if item]
    reach = sum(sizes)
    chances = np.zeros(2 * reach + 1)  # of each sum, from -reach to reach
    chances[reach] = 1.0
    for size in sizes:
        chances = (np.roll(chances, size) + np.roll(chances, -size)) / 2  # nothing comes round: no sum is beyond reach
    far = abs(sum(differences))
    return min(1.0, float(chances[: reach - far + 1].sum() + chances[reach + far :].sum()))


def paired_difference(
    first: Sequence[float], second: Sequence[float], confidence: float = 0.95, num_resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return mean(second) - mean(first), with a bootstrap over problems that keeps each problem's pair together.

    Item i of both is what the two systems scored on problem i: True and False, or parts of a point.
    """
    if len(first) != len(second):
        raise ValueError(
            f"{len(first)} scores of the first, {len(second)} of the second: allowed are pairs, one for each problem"
        )
    differences = [float(there) - float(here) for here, there in zip(first, second, strict=True)]
    return mean_interval(differences, confidence, num_resamples, seed)


def paired_cluster_difference(
    first: Sequence[float],
    first_clusters: Sequence[str],
    second: Sequence[float],
    second_clusters: Sequence[str],
    confidence: float = 0.95,
    num_resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return mean(second) - mean(first) where systems answered each problem several times; ``n`` is the number of problems.

    ``first_clusters[i]`` names the problem of ``first[i]``. A resample takes the same problems for both systems, each with all
    its answers; the systems need not have equally many.
    """
    if lonely := set(first_clusters) ^ set(second_clusters):
        raise ValueError(f"{min(lonely)} was answered by one system only: allowed are the same problems for both")
    order = list(dict.fromkeys(first_clusters))
    sums, sizes = _per_cluster(first, first_clusters, order)
    others, other_sizes = _per_cluster(second, second_clusters, order)

    def difference(index: "np.ndarray") -> float:
        return others[index].sum() / other_sizes[index].sum() - sums[index].sum() / sizes[index].sum()

    return bootstrap(len(order), difference, confidence, num_resamples, seed)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values adjusted for testing them all (Holm 1979), by the same names: reject where one is at most alpha."""
    if bad := {name: p for name, p in p_values.items() if not 0 <= p <= 1}:
        raise ValueError(f"p_values hold {bad}: allowed are numbers from 0 to 1")
    adjusted, largest = {}, 0.0
    for place, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


# Power: how many problems show a difference


def n_to_see(p_first: float, p_second: float, discordance: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """Return how many problems two systems must both answer for McNemar's test to see that their rates differ.

    ``discordance`` is the share of problems that exactly one of them gets right; pilot runs tell it, and 1 minus it is their
    agreement. The formula is that of Connor 1987 (Biometrics 43): unconditional, two-sided, normal. The exact test
    is conservative, and needs a few problems more.
    """
    difference = _difference(p_first, p_second, power, alpha)
    most = min(p_first + p_second, 2 - p_first - p_second)
    if not difference <= discordance + 1e-12 <= most + 2e-12:
        raise ValueError(
            f"discordance={discordance}: rates {p_first} and {p_second} allow shares from {difference:.6g} to {most:.6g}"
        )
    null, other = math.sqrt(discordance), math.sqrt(max(0.0, discordance - difference**2))
    return _sample_size(null, other, difference, power, alpha)


def n_to_see_unpaired(p_first: float, p_second: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """Return how many problems *each* of two systems must answer, not the same ones, for their rates to be told apart.

    Two-sided test of two proportions, variance pooled under the null (Fleiss, Levin and Paik 2003, chapter 4).
    """
    difference = _difference(p_first, p_second, power, alpha)
    mean = (p_first + p_second) / 2
    null = math.sqrt(2 * mean * (1 - mean))
    other = math.sqrt(p_first * (1 - p_first) + p_second * (1 - p_second))
    return _sample_size(null, other, difference, power, alpha)


def _difference(p_first: float, p_second: float, power: float, alpha: float) -> float:
    for name, value in (("p_first", p_first), ("p_second", p_second)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name}={value}: allowed are rates from 0 to 1")
    for name, value in (("power", power), ("alpha", alpha)):
        if not 0 < value < 1:
            raise ValueError(f"{name}={value}: allowed are probabilities between 0 and 1")
    if p_first == p_second:
        raise ValueError(f"p_first={p_first}, p_second={p_second}: no number of problems shows a difference of 0")
    return abs(p_second - p_first)


def _sample_size(null: float, other: float, difference: float, power: float, alpha: float) -> int:
    """Observations for a two-sided normal test, by the deviations of one difference under the null and the alternative."""
    normal = NormalDist()
    return math.ceil(((normal.inv_cdf(1 - alpha / 2) * null + normal.inv_cdf(power) * other) / difference) ** 2 - 1e-9)


# Several answers to one problem


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return the chance that k of n answers, c of them right, hold a right one (Chen et al. 2021, equation 1; unbiased)."""
    _check_draw(n, c, k)
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def pass_power_k(n: int, c: int, k: int) -> float:
    """Return the chance that k of n answers, c of them right, are all right (tau-bench, arXiv 2406.12045: pass^k; unbiased)."""
    _check_draw(n, c, k)
    return math.comb(c, k) / math.comb(n, k)


def g_pass_at_k(n: int, c: int, k: int, share: float = 0.5) -> float:
    """Return the chance that of k of n answers, c of them right, at least this share is right (G-Pass@k, arXiv 2412.13147)."""
    _check_draw(n, c, k)
    least = max(math.ceil(share * k - 1e-9), 1)
    return sum(math.comb(c, j) * math.comb(n - c, k - j) for j in range(least, k + 1)) / math.comb(n, k)


@dataclass(frozen=True, slots=True)
class Vote:
    """The outcome of a vote."""

    answer: str
    """The winner, written as ``key`` writes it."""
    votes: int
    """How many voted for it."""
    num_votes: int
    """How many voted at all."""
    tied: tuple[str, ...]
    """All answers with as many votes, the winner among them, sorted; more than one where chance decided."""


def majority(answers: Sequence[str | None], key: Callable[[str], str] = normalise, seed: int | str = 0) -> Vote | None:
    """Return the answer most often given; None (no answer found) does not vote, and where nobody votes there is no winner.

    Answers that ``key`` writes alike are one. Of tied answers one is drawn, all equally likely over seeds; which one depends on
    ``seed`` and the tied answers alone, never on the order of the votes.
    """
    counts = Counter(key(answer) for answer in answers if answer is not None)
    if not counts:
        return None
    most = max(counts.values())
    tied = tuple(sorted(answer for answer, votes in counts.items() if votes == most))
    return Vote(Random(repr((seed, tied))).choice(tied), most, counts.total(), tied)


def maj_at_k(answers: Sequence[str | None], gold: str, k: int, key: Callable[[str], str] = normalise) -> float:
    """Return the exact expected accuracy of the majority of k answers, drawn without replacement from those given.

    None does not vote; a draw without a vote is not right. A tie is won by each tied answer with the same probability, so a draw
    in which ``gold`` ties with t others counts 1 / (t + 1). Answers that ``key`` writes alike are one.
    """
    counts = Counter(None if answer is None else key(answer) for answer in answers)
    right, silent = counts.pop(key(gold), 0), counts.pop(None, 0)
    _check_draw(len(answers), right, k)
    others = list(counts.values())
    won = Fraction(0)
    for votes in range(1, min(right, k) + 1):
        for (drawn, ties), ways in _draws(others, votes, k - votes).items():
            won += Fraction(math.comb(right, votes) * ways * math.comb(silent, k - votes - drawn), ties + 1)
    return float(won / math.comb(len(answers), k))


def ballots(rows: Sequence[Mapping[str, Any]]) -> list[str | None]:
    """What each graded row votes for: all right answers are one, whatever way they are written (hence ``key=str``)."""
    return [RIGHT if row["correct"] else None if row["answer"] is None else f"= {normalise(row['answer'])}" for row in rows]


def _draws(counts: Sequence[int], most: int, room: int) -> dict[tuple[int, int], int]:
    """Ways to draw up to ``room`` from groups of such sizes, up to ``most`` of each: by (drawn, groups that reach ``most``)."""
    ways = {(0, 0): 1}
    for count in counts:
        longer: Counter[tuple[int, int]] = Counter()
        for (drawn, ties), number in ways.items():
            for more in range(min(count, most, room - drawn) + 1):
                longer[drawn + more, ties + (more == most)] += number * math.comb(count, more)
        ways = longer
    return ways


def _check_draw(n: int, c: int, k: int) -> None:
    if not 0 <= c <= n:
        raise ValueError(f"c={c} right of n={n}: allowed are 0 to n")
    if not 1 <= k <= n:
        raise ValueError(f"k={k} of n={n}: allowed are 1 to n, as answers are drawn without replacement")


# Checks


def _per_cluster(values: Sequence[float], clusters: Sequence[str], order: list[str]) -> "tuple[np.ndarray, np.ndarray]":
    """Sum and number of the values in each cluster, ``[clusters]`` both, in the order given."""
    import numpy as np

    _check_finite(values)
    if len(values) != len(clusters):
        raise ValueError(f"{len(values)} values in {len(clusters)} clusters: allowed is the name of one cluster for each value")
    place = {name: i for i, name in enumerate(order)}
    index = np.asarray([place[name] for name in clusters], dtype=np.int64)
    weights = np.asarray(values, dtype=np.float64)
    return np.bincount(index, weights, len(order)), np.bincount(index, minlength=len(order))


def _check_finite(values: Sequence[float]) -> None:
    if bad := [value for value in values if not math.isfinite(value)]:
        raise ValueError(f"values hold {bad[0]}: allowed are finite numbers; count what has no value apart")


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}: allowed are levels between 0 and 1, such as 0.95")
