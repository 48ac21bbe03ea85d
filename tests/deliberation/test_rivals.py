"""Recipes at equal tokens, worked out by hand; and samples read as chains."""

import json
from pathlib import Path
from typing import Any

import pytest

from latent_lab.deliberation.forms import read
from latent_lab.deliberation.rivals import ALL, HALF, PASS, VOTE, Point, at_equal_tokens, curves
from latent_lab.grading.statistics import ballots
from latent_lab.problems import DataError

Row = dict[str, Any]


def row(method: str, problem: str, chain: int, k: int, answer: str | None, tokens: int, **more: Any) -> Row:
    """A row of a problem whose gold answer is 7."""
    columns = {
        "summary_tokens": None,
        "is_carried": False,
        "summary": None,
        "reasoning": "r",
        "finish_reason": "stop",
        "error": None,
    }
    where = {"method": method, "id": problem, "chain": chain, "iteration": k, "gold": "7"}
    return {**where, "answer": answer, "correct": answer == "7", "cum_tokens": tokens, **columns, **more}


ROWS = [
    # Two chains on each of two problems: 10 tokens, a summary of 2, then 20 more.
    row("whole", "a", 0, 0, "7", 12, summary_tokens=2), row("whole", "a", 0, 1, "7", 32),
    row("whole", "a", 1, 0, "5", 12, summary_tokens=2), row("whole", "a", 1, 1, "7", 32),
    row("whole", "b", 0, 0, "5", 12, summary_tokens=2), row("whole", "b", 0, 1, "5", 12, is_carried=True),
    row("whole", "b", 1, 0, None, 12, summary_tokens=2), row("whole", "b", 1, 1, "7", 32),
    # Four first attempts: right 2 of 4 and 1 of 4.
    *[row("samples", "a", n, 0, answer, 10) for n, answer in enumerate(["7", "5", "7", "6"])],
    *[row("samples", "b", n, 0, answer, 10) for n, answer in enumerate(["5", None, "7", "5"])],
]  # fmt: skip


def test_a_chain_costs_its_attempts_and_what_was_handed_on_before_the_last() -> None:
    first, second = curves(ROWS)["whole"]
    assert (first.tokens, first.scores) == (10.0, (0.5, 0.0))
    assert (second.tokens, second.scores) == ((32 + 32 + 12 + 32) / 4, (1.0, 0.5))


def test_votes_weigh_all_draws_alike_and_share_ties() -> None:
    found = curves(ROWS)
    assert [point.tokens for point in found[VOTE]] == [10, 20, 30, 40]
    assert [point.scores[0] for point in found[VOTE]][:2] == [0.5, pytest.approx((1 + 4 * 0.5) / 6)]
    assert found[VOTE][3].scores == (1.0, 0.0)  # two sevens win; two fives beat one seven
    assert [point.scores for point in found[PASS]][:2] == [(0.5, 0.25), (pytest.approx(5 / 6), 0.5)]
    # All of 1, 2 and 3 draws: two of four are right, so one pair of six is and no three are; one of four is never two.
    assert [point.scores for point in found[ALL]] == [(0.5, 0.25), (pytest.approx(1 / 6), 0.0), (0.0, 0.0), (0.0, 0.0)]
    # Half of 1 and 2 is one, half of 3 and 4 takes two: of four with two right, two of four threes have both.
    assert [point.scores for point in found[HALF]] == [(0.5, 0.25), (pytest.approx(5 / 6), 0.5), (0.5, 0.0), (1.0, 0.0)]
    (voted,) = found["whole, then vote"]
    assert (voted.size, voted.tokens, voted.scores) == (2, 2 * 27.0, (1.0, 0.5))  # of a five and a seven each has half


def test_right_answers_are_one_vote_however_they_are_written() -> None:
    rows = [row("x", "a", 0, 0, "7", 1), row("x", "a", 1, 0, "7.0", 1, correct=True), row("x", "a", 2, 0, "right", 1)]
    assert ballots(rows)[:2] == ["right", "right"]
    assert ballots(rows)[2] != "right"


def test_within_a_budget_every_recipe_goes_as_far_as_it_can_and_gold_is_left_out() -> None:
    found = at_equal_tokens(curves(ROWS), 27.0, seed=0)
    sizes = {name: (each["size"], each["tokens"]) for name, each in found["recipes"].items()}
    assert sizes == {"whole": (1, 27.0), VOTE: (2, 20.0)}
    (pair,) = found["pairs"]
    # 1 and 0.5 beyond 0.5 and 1/4 - that is (0.5 + 2/6)/... by draws: a is 0.5, b: 6 draws of 5,-,7,5.
    assert (pair["better"], pair["worse"], pair["n"]) == ("whole", VOTE, 2)
    assert pair["sign_flip_p"] == pair["sign_flip_holm_p"] == 0.5  # both problems the same way: 2 of 4 choices of signs
    assert found["verdict"].startswith("the pair does not differ")


def test_a_recipe_that_costs_more_from_its_first_point_is_left_out() -> None:
    points = {"cheap": [Point(0, 5.0, (1.0,))], "dear": [Point(0, 6.0, (1.0,))]}
    assert list(at_equal_tokens(points, 5.0, 0)["recipes"]) == ["cheap"]


def written(folder: Path, rows: list[Row]) -> Path:
    path = folder / "samples.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return path


def test_samples_are_read_as_chains_without_first_attempts_that_only_vote(tmp_path: Path) -> None:
    table = read(written(tmp_path, ROWS))
    assert [(chain.method, chain.run, chain.problem, chain.right) for chain in table.chains] == [
        ("whole", "chain0", "a", (True, True)),
        ("whole", "chain1", "a", (False, True)),
        ("whole", "chain0", "b", (False, False)),
        ("whole", "chain1", "b", (False, True)),
    ]
    assert table.chains[2].iterations[1].is_cut is None
    assert table.chains[0].iterations[0].summary_tokens == 2


def test_samples_that_are_none_are_refused_with_their_row(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"samples\.jsonl, row 1: it has no method; allowed: the samples\.jsonl that task=summ"):
        read(written(tmp_path, [{"id": 1}]))
    with pytest.raises(DataError, match=r"problem a, chain 0: iterations \[0, 2\]; allowed: each once, from 0$"):
        read(written(tmp_path, [ROWS[0], ROWS[1] | {"iteration": 2}]))
    with pytest.raises(DataError, match="holds no chain; at least one is needed"):
        read(written(tmp_path, ROWS[-1:]))
