"""Rows held against rows: the numbers by hand, and what is tested against what."""

from typing import Any

import pytest

from latent_lab.config import ConfigError
from latent_lab.job import job
from latent_lab.report.table_pairs import Scored, bases, markdown, pair, pairs


def scored(**seeds: str) -> Scored:
    """``s1="101"``: with seed 1 the first and the third problem are right."""
    return {int(name[1:]): {f"p{i}": sign == "1" for i, sign in enumerate(right)} for name, right in seeds.items()}


NONE, PLAN = scored(s1="0001", s2="0011"), scored(s1="1111", s2="0111")


def test_a_pair_is_compared_problem_by_problem_and_seed_by_seed() -> None:
    found = pair("plan", PLAN, "none", NONE)
    assert (found["label"], found["against"], found["seeds"]) == ("plan", "none", [1, 2])
    assert (found["difference"]["value"], found["difference"]["n"]) == (0.5, 4)
    assert found["per_seed"] == [0.75, 0.25]
    assert (found["over_seeds"]["low"], found["over_seeds"]["high"]) == (-1.0, 1.0)  # 0.5 +- 12.7 * 0.25, and no share is larger
    # Problems gain 1, 2, 1 and 0 answers; of the eight ways to sign 1, 2, 1 two bring their sum to 4 or -4.
    assert found["p"] == pytest.approx(0.25)


def test_over_seeds_is_a_t_interval_that_may_go_below_nought() -> None:
    over = pair("b", scored(s1="01", s2="01", s3="11"), "a", scored(s1="01", s2="11", s3="01"))["over_seeds"]
    assert (over["value"], over["low"], over["high"]) == pytest.approx((0.0, -1.0, 1.0))
    ten = {seed: "1" * gained + "0" * (10 - gained) for seed, gained in (("s1", 3), ("s2", 4), ("s3", 5))}
    over = pair("b", scored(**ten), "a", scored(s1="0" * 10, s2="0" * 10, s3="0" * 10))["over_seeds"]
    half = 4.302653 * 0.1 / 3**0.5
    assert (over["low"], over["high"]) == pytest.approx((0.4 - half, 0.4 + half), abs=1e-6)


def test_only_seeds_that_both_have_count() -> None:
    assert pair("plan", PLAN, "none", scored(s2="0011", s3="0000"))["seeds"] == [2]
    assert pair("plan", PLAN, "none", scored(s2="0011"))["over_seeds"] is None
    assert pairs({"none": NONE, "plan": scored(s7="1111")}, ["none"], {}) == []


def test_every_row_is_held_against_each_base_once_and_holm_is_over_all() -> None:
    rows = {"plan": PLAN, "none": NONE, "filler": NONE}
    found = pairs(rows, ["none", "filler"], {"plan": scored(s1="1111", s2="1111")})
    assert [(each["label"], each["against"]) for each in found] == [
        ("plan", "none"),
        ("filler", "none"),
        ("plan, gold plan given", "none"),
        ("plan", "filler"),
        ("plan, gold plan given", "filler"),
    ]
    # Gains of 2, 2, 1 and 0 problems: two of eight ways reach 5. All four tests but the equal pair have p = 1/4.
    assert [each["p"] for each in found] == pytest.approx([0.25, 1.0, 0.25, 0.25, 0.25])
    assert [each["holm_p"] for each in found] == pytest.approx([1.0] * 5)


def test_bases_are_named_by_their_labels_or_last_words() -> None:
    labels = ["plan=none", "plan=filler", "cot-none", "plan=kmeans, stage.num_prefix=1"]
    assert bases(labels, ["filler", "plan=none"]) == ["plan=filler", "plan=none"]
    said = "allowed: plan=none; plan=filler; cot-none; plan=kmeans, stage.num_prefix=1"
    for name, why in (("none", "several rows are"), ("kmeans", "no row is")):
        with pytest.raises(ConfigError) as error:
            bases(labels, [name])
        assert str(error.value) == f"task.against: given {name}; {why} called so; {said}"


def test_the_pairs_in_markdown() -> None:
    shown = markdown(pairs({"none": NONE, "plan": PLAN}, ["none"], {}))
    assert shown[:3] == [
        "| difference | points [95% over problems] | each seed | [95% over seeds] | p | p, Holm |",
        "|---|---:|---:|---:|---:|---:|",
        "| `plan` - `none` | +50.0 [+12.5, +87.5] | +75.0, +25.0 | [-100.0, +100.0] | 0.25 | 0.25 |",
    ]
    assert "Holm's correction is over these 1." in shown[-1]


@pytest.mark.parametrize("given", ["[a,[b]]", "''"])
def test_names_of_rows_are_texts(given: Any) -> None:
    with pytest.raises(ConfigError, match=r"^task\.against: given .*; allowed: labels of rows, as in \[none,filler\]$"):
        job("eval", ["task=table", f"task.against={given}"])
