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
    bar: float | None
    """What the ratio must not exceed; for a speed-up (``is_speedup``) what it must reach; None: it is there to compare with."""
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
        """Whether the bar is kept, if there is one."""
        return self.bar is None or (self.ratio >= self.bar if self.is_speedup else self.ratio <= self.bar)

    def as_dict(self) -> dict[str, Any]:
        """For ``result.json``."""
        return {**asdict(self), "holds": self.holds}

    def in_words(self) -> str:
        """One line for the terminal."""
        spread = f"({self.low:.3f} to {self.high:.3f}, n={self.n})"
        kept = "no bar"
        if self.bar is not None:
            bar = f"bar {'>=' if self.is_speedup else '<='} {self.bar:g}"
            kept = f"{bar:<12} {'holds' if self.holds else 'MISSES'}"
        return f"{self.name:<72} {self.ratio:8.3f}  {spread:<28} {kept}"


@dataclass(frozen=True)
class Case:
    """A row that can be measured. It makes what it needs when it is, so that nothing of another row's is held meanwhile."""

    name: str
    measure: Callable[[str, int], Row]
    """The row of this name, from so many pairs."""


def timed(work: Work, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds one call takes by a clock; ``time.process_time`` counts those of the CPU, not those waited."""
    start = clock()
    work()
    return clock() - start


def median_of(measure: Callable[[], float], n: int) -> float:
    """Median of ``n`` measurements."""
    return statistics.median(measure() for _ in range(n))


def row_of(name: str, ratios: Sequence[float], bar: float | None, **others: Any) -> Row:
    """A row from ratios that were measured one after the other."""
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else [ratios[0]] * 3
    return Row(name, statistics.median(ratios), bar, low, high, len(ratios), **others)


def compare(name: str, ours: Work, theirs: Work, bar: float | None, n: int) -> Row:
    """Time the two in turn, ``n`` times after a warm-up of both; the ratio is ours / theirs."""
    timed(ours), timed(theirs)
    pairs = [(timed(ours), timed(theirs)) for _ in range(n)]
    seconds = tuple(statistics.median(side) for side in zip(*pairs, strict=True))
    return row_of(name, [a / b for a, b in pairs], bar, seconds=seconds)
