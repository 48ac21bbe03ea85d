"""The ladder: a level counts only with all below it, and the p-values of all levels are adjusted together."""

import pytest

from latent_lab.thoughts.ladder import Endpoint, Thresholds, climb, p_above_zero


def endpoint(level: str, value: float | None, half: float = 0.1, conditions: tuple[bool, ...] = ()) -> Endpoint:
    found = None if value is None else {"value": value, "low": value - half, "high": value + half, "n": 100}
    return Endpoint(level, "a difference", found, "above 0", "it is so.", conditions)


ALL = [endpoint(f"L{i}", 0.5) for i in range(1, 6)]


def level(*endpoints: Endpoint) -> str:
    found: str = climb(endpoints, "emergent", Thresholds())["level"]
    return found


def test_all_levels_pass() -> None:
    made = climb(ALL, "supervised", Thresholds())
    assert (made["level"], made["name"], made["kind"]) == ("L5", "causal", "supervised")
    assert [row["passed"] for row in made["evidence"]] == [True] * 5
    assert made["thresholds"]["target_win"] == 0.8


@pytest.mark.parametrize("broken", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("how", ["no difference", "not measured", "a condition fails"])
def test_the_level_is_the_highest_with_none_failing_below(broken: int, how: str) -> None:
    bad = {"no difference": endpoint(f"L{broken}", 0.0), "not measured": endpoint(f"L{broken}", None)}.get(
        how, endpoint(f"L{broken}", 0.5, conditions=(True, False))
    )
    assert level(*ALL[: broken - 1], bad, *ALL[broken:]) == f"L{broken - 1}"


def test_nothing_measured_is_level_0() -> None:
    assert level() == "L0"
    row = climb([endpoint("L1", None)], "emergent", Thresholds())["evidence"][0]
    assert (row["is_tested"], row["passed"], row["p"], row["value"]) == (False, False, None, None)


def test_p_values_are_those_of_the_interval_and_adjusted_together() -> None:
    # 0.1 above 0 with a 95% interval of +/- 0.1 is 1.96 standard errors: p = .025 one-sided; five such levels: 5 x .025.
    assert p_above_zero({"value": 0.1, "low": 0.0, "high": 0.2}) == pytest.approx(0.025, abs=1e-4)
    assert p_above_zero({"value": 1.0, "low": 1.0, "high": 1.0}) == 0.0
    assert p_above_zero({"value": 0.0, "low": 0.0, "high": 0.0}) == 1.0
    assert p_above_zero({"value": None, "low": None, "high": None}) == 1.0
    alone = climb([endpoint("L1", 0.1)], "emergent", Thresholds())
    together = climb([endpoint(f"L{i}", 0.1) for i in range(1, 6)], "emergent", Thresholds())
    assert (alone["level"], together["level"]) == ("L1", "L0")
    assert together["evidence"][0]["p_adjusted"] == pytest.approx(0.125, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("alpha", 0.0, "numbers above 0 and below 1"),
        ("alpha", float("nan"), "numbers above 0 and below 1"),
        ("target_win", 1.0, "0 to below 1"),
        ("competitor", -0.1, "0 to 1"),
        ("corruption_drop", 1.1, "0 to 1"),
        ("agreement", 2.0, "0 to 1"),
        ("min_errors", 0, "1 and more"),
    ],
)
def test_a_threshold_that_no_share_can_be_is_named(name: str, value: float, allowed: str) -> None:
    assert Thresholds(**{name: value}).complaint == f"{name}={value}: allowed are {allowed}"
    assert Thresholds().complaint == ""
