"""The ladder of claims: how much may be said about a model's thoughts, and what each claim rests on.

L0 nothing above a constant guess; L1 decodable; L2 each thought holds its own step; L3 a language model can say what it holds;
L4 what is said follows the model where it is wrong; L5 changing a thought changes the answer as it should. A level counts only if
all below it hold. Thresholds are settings, to be fixed before test data are seen; each level has one primary endpoint, and the
p-values of the five are adjusted together (Holm).
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

from latent_lab.grading.statistics import holm

NAMES = {
    "L0": "nothing above a constant guess",
    "L1": "decodable",
    "L2": "position-specific",
    "L3": "verbalisable",
    "L4": "model-faithful",
    "L5": "causal",
}
"""What each level claims."""


@dataclass
class Thresholds:
    """What a level takes. They are settings, to be fixed before test problems are read; nothing here is fitted."""

    alpha: float = 0.05
    """Largest adjusted p-value of a level's primary endpoint."""
    target_win: float = 0.80
    """L5: least share of exchanges after which the answer is the composed target, in every column."""
    competitor: float = 0.25
    """L5: largest share after which it is the donor's whole answer, in every column."""
    corruption_drop: float = 0.50
    """L5: least loss of target-wins when noise of the same length replaces the donor's thought."""
    agreement: float = 0.80
    """L5: least share of exchanges after which both report and answer move to the donor's value."""
    min_errors: int = 300
    """L4: fewest cases in which the model is wrong."""

    @property
    def complaint(self) -> str:
        """What is wrong with the first that cannot be, as ``name=value: allowed are ...``; empty where all can."""
        for name in ("competitor", "corruption_drop", "agreement"):
            if not 0 <= getattr(self, name) <= 1:
                return f"{name}={getattr(self, name)}: allowed are 0 to 1"
        if not 0 <= self.target_win < 1:  # wins are to be above it
            return f"target_win={self.target_win}: allowed are 0 to below 1"
        if not 0 < self.alpha < 1:
            return f"alpha={self.alpha}: allowed are numbers above 0 and below 1"
        return "" if self.min_errors >= 1 else f"min_errors={self.min_errors}: allowed are 1 and more"


@dataclass(frozen=True)
class Evidence:
    """What one level rests on."""

    level: str
    name: str
    endpoint: str
    """The one number that decides."""
    value: float | None
    low: float | None
    high: float | None
    n: int
    threshold: str
    """What it must be, in words."""
    p: float | None
    """One-sided, from the clustered bootstrap interval; before adjustment."""
    p_adjusted: float | None
    passed: bool
    is_tested: bool
    """Whether the endpoint could be measured here."""
    kind: str
    """``supervised``, where a reader of thoughts was part of the loss, else ``emergent``."""
    says: str
    """One sentence."""


@dataclass(frozen=True)
class Endpoint:
    """A level's endpoint before all p-values are adjusted together: a difference that must be above 0, and side conditions."""

    level: str
    endpoint: str
    difference: dict[str, Any] | None
    """``{value, low, high, n}``; None: not measured."""
    threshold: str
    says: str
    conditions: tuple[bool, ...] = ()
    """Whatever else the level takes."""


def p_above_zero(difference: dict[str, Any]) -> float:
    """One-sided p-value that a difference is not above 0, from its 95% interval (normal approximation of the bootstrap)."""
    value, low, high = (difference[key] for key in ("value", "low", "high"))
    if value is None:
        return 1.0
    error = (high - low) / (2 * NormalDist().inv_cdf(0.975))
    if error <= 0:
        return 0.0 if value > 0 else 1.0
    return 1 - NormalDist().cdf(value / error)


def climb(endpoints: Iterable[Endpoint], kind: str, thresholds: Thresholds) -> dict[str, Any]:
    """Judge every level: ``{level, name, evidence, thresholds}``; ``level`` is the highest one below which none fails."""
    given = list(endpoints)
    raw = {e.level: p_above_zero(e.difference) for e in given if e.difference is not None}
    adjusted = holm(raw) if raw else {}
    evidence = []
    for e in given:
        tested = e.difference is not None
        d = e.difference or {"value": None, "low": None, "high": None, "n": 0}
        passed = tested and adjusted[e.level] <= thresholds.alpha and all(e.conditions)
        numbers = (d["value"], d["low"], d["high"], int(d.get("n") or 0))
        p = (raw.get(e.level), adjusted.get(e.level))
        evidence.append(Evidence(e.level, NAMES[e.level], e.endpoint, *numbers, e.threshold, *p, passed, tested, kind, e.says))
    level = "L0"
    for row in sorted(evidence, key=lambda row: row.level):
        if not row.passed:
            break
        level = row.level
    return {
        "level": level,
        "name": NAMES[level],
        "kind": kind,
        "thresholds": asdict(thresholds),
        "evidence": [asdict(row) for row in evidence],
    }
