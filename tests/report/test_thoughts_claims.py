"""From a report's numbers to the ladder's rungs."""

from copy import deepcopy
from typing import Any

import pytest

from latent_lab.report.thoughts_claims import ladder
from latent_lab.thoughts.ladder import Thresholds


def rate(value: float, half: float = 0.01, n: int = 1000) -> dict[str, Any]:
    return {"value": value, "low": value - half, "high": value + half, "n": n}


def columns(*found: tuple[float, float]) -> dict[str, Any]:
    """Target-wins and the donor's in each column of 4-digit sums, beside a row that is no column."""
    rows = {str(k): {"n": 400, "target": rate(t), "donor": rate(d), "keep": rate(0.0)} for k, (t, d) in enumerate(found)}
    return {"digits=4": {**rows, "final_carry": {"target": rate(0.0), "donor": rate(1.0)}}}


READABLE: dict[str, Any] = {
    "probes": {
        "fields": {
            "write": {
                "all": {
                    **rate(0.99),
                    "floor": 0.12,
                    "floors": {"control_task": rate(0.2)},
                    "gain": rate(0.98),
                    "selectivity": rate(0.79),
                }
            }
        },
        "position": rate(0.6),
    },
    "oracle": {"column_step_exact_match": {**rate(0.97), "floor": 0.02, "gain": rate(0.96)}},
    "agreement": {
        "errors": 500,
        "made": True,
        "readers": {
            "oracle": {
                "model": rate(0.8), "gold": rate(0.1), "difference": rate(0.7),
                "without": {"model": rate(0.1), "gold": rate(0.1), "difference": rate(0.0)},
            }
        },
        "exchange": {"both": rate(0.95)},
    },
    "interventions": {
        "interchange": {"cache": {"digits": columns((0.99, 0.0), (0.97, 0.01)), "necessity": {"drop": 0.9}}}
    },
}  # fmt: skip


def judged(result: dict[str, Any]) -> dict[str, Any]:
    return ladder(result, "write", "supervised", Thresholds())


def test_everything_holds() -> None:
    made = judged(READABLE)
    assert made["level"] == "L5"
    by_level = {row["level"]: row for row in made["evidence"]}
    assert by_level["L5"]["value"] == pytest.approx(0.17), "the worst column's 0.97 less 0.80"
    assert "A linear probe reads 'write' in 99.0%" in by_level["L1"]["says"]
    assert "misled by another problem's thought" in by_level["L4"]["says"]


@pytest.mark.parametrize(
    ("path", "value", "level"),
    [
        (["probes", "fields", "write", "all", "selectivity"], rate(0.0), "L0"),
        (["probes", "fields", "write", "all", "gain"], rate(0.0), "L0"),
        (["probes", "position"], rate(-0.1), "L1"),
        (["probes", "position"], {"value": None, "low": None, "high": None}, "L1"),
        (["oracle", "column_step_exact_match", "gain"], rate(0.0), "L2"),
        (["oracle"], None, "L2"),
        (["agreement", "readers", "oracle", "difference"], rate(-0.5), "L3"),
        (["agreement", "errors"], 299, "L3"),
        (["agreement", "readers", "oracle", "without", "model"], rate(0.85), "L3"),
        (["agreement", "exchange", "both"], rate(0.79), "L4"),
        (["interventions", "interchange", "cache", "digits"], columns((0.99, 0.0), (0.5, 0.0)), "L4"),
        (["interventions", "interchange", "cache", "digits"], columns((0.99, 0.26)), "L4"),
        (["interventions", "interchange", "cache", "necessity"], {"drop": 0.4}, "L4"),
        (["interventions", "interchange"], {}, "L4"),
    ],
)
def test_each_condition_counts(path: list[str], value: object, level: str) -> None:
    result = deepcopy(READABLE)
    node = result
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    assert judged(result)["level"] == level


def test_an_empty_report_is_level_0_and_says_what_was_not_tested() -> None:
    made = judged({})
    assert made["level"] == "L0"
    assert [row["is_tested"] for row in made["evidence"]] == [False] * 5
