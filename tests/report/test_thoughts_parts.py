"""What the parts of a thoughts report make of what they measured."""

from typing import Any

from latent_lab.report.thoughts_claims import columns_of
from latent_lab.report.thoughts_parts import interchange


def rate(value: float) -> dict[str, Any]:
    return {"value": value, "low": value, "high": value, "n": 300, "clusters": 200}


def row(target: float) -> dict[str, Any]:
    return {"n": 300, "target": rate(target), "donor": rate(0.0), "keep": rate(1 - target)}


def test_the_columns_shown_are_those_of_the_longest_sums_and_all_are_kept() -> None:
    short, long = {"0": row(0.5), "1": row(0.6)}, {"0": row(0.7), "1": row(0.8), "2": row(0.9), "final_carry": row(0.1)}
    report = {
        "chance": 1 / 9,
        "independent": {"cache": {"digits=2": short, "digits=3": long, "overall": row(0.75)}, "thought": {"overall": None}},
        "same_carry": {"cache": {"overall": row(1.0)}},
        "summary": {"cache": {"drop": rate(0.9)}},
    }
    found = interchange(report)
    assert list(found) == ["cache"], "a site without any pair is left out"
    cache = found["cache"]
    assert [(column["slot"], column["target"]["value"]) for column in cache["columns"]] == [(1, 0.7), (2, 0.8), (3, 0.9)]
    assert cache["digits"] == {"digits=2": short, "digits=3": long}
    assert (cache["all"], cache["chance"], cache["necessity"]["drop"]) == (row(0.75), 1 / 9, 0.9)
    assert cache["minimal"] == {"same_carry": {"overall": row(1.0)}}


def test_what_concerns_the_final_carry_is_no_column() -> None:
    assert [column["slot"] for column in columns_of({"0": row(1.0), "last_column": row(0.5), "overall": row(1.0)})] == [1]
