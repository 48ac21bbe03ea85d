"""How sure one can be of a rate or a mean: confidence intervals, each with the n it rests on."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate from ``n`` observations with its confidence interval; all three numbers are None where ``n`` is 0."""

    value: float | None
    n: int
    low: float | None
    high: float | None

    def as_dict(self) -> dict[str, float | int | None]:
        """Return the fields as standard JSON can hold them."""
        return asdict(self)


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


def mean_interval(values: Sequence[float], confidence: float = 0.95, num_resamples: int = 2_000, seed: int = 0) -> Interval:
    """Return a mean with its bootstrap percentile interval; the same values in the same order give the same interval.

    The interval never reaches past the values seen: equal values, or a single one, give one of no width.
    """
    _check_confidence(confidence)
    if bad := [value for value in values if not math.isfinite(value)]:
        raise ValueError(f"values hold {bad[0]}: allowed are finite numbers; count what has no value apart")
    if not len(values):
        return Interval(None, 0, None, None)
    import numpy as np

    observed = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    means = [observed[rng.integers(0, len(observed), len(observed))].mean() for _ in range(num_resamples)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(observed.mean()), len(observed), float(low), float(high))


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}: allowed are levels between 0 and 1, such as 0.95")
