"""Ratios of two pieces of work, timed in turn in one process, so that the machine's mood falls on both."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Work = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """A ratio beside its bar."""

    name: str
    ratio: float
    """Median over pairs."""
    bar: float
    """What the ratio must not exceed; for a speed-up (``is_speedup``) what it must reach."""
    low: float
    """First quartile."""
    high: float
    """Third quartile."""
    n: int
    """Pairs timed."""
    seconds: tuple[float, ...] = ()
    """Medians of the two sides, where both were timed."""
    is_speedup: bool = False

    @property
    def holds(self) -> bool:
        """Whether the bar is kept."""
        return self.ratio >= self.bar if self.is_speedup else self.ratio <= self.bar

    def as_dict(self) -> dict[str, Any]:
        """For ``result.json``."""
        return {**asdict(self), "holds": self.holds}

    def in_words(self) -> str:
        """One line for the terminal."""
        bar = f"bar {'>=' if self.is_speedup else '<='} {self.bar:g}"
        spread = f"({self.low:.3f} to {self.high:.3f}, n={self.n})"
        return f"{self.name:<72} {self.ratio:8.3f}  {spread:<28} {bar:<12} {'holds' if self.holds else 'MISSES'}"


def timed(work: Work, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds one call takes by a clock; ``time.process_time`` counts those of the CPU, not those waited."""
    start = clock()
    work()
    return clock() - start


def row_of(name: str, ratios: Sequence[float], bar: float, **others: Any) -> Row:
    """A row from ratios that were measured one after the other."""
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else [ratios[0]] * 3
    return Row(name, statistics.median(ratios), bar, low, high, len(ratios), **others)


def compare(name: str, ours: Work, theirs: Work, bar: float, n: int) -> Row:
    """Time the two in turn, ``n`` times after a warm-up of both; the ratio is ours / theirs."""
    timed(ours), timed(theirs)
    pairs = [(timed(ours), timed(theirs)) for _ in range(n)]
    seconds = tuple(statistics.median(side) for side in zip(*pairs, strict=True))
    return row_of(name, [a / b for a, b in pairs], bar, seconds=seconds)
