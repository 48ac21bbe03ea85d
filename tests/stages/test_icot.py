"""Stepwise internalisation: what is removed when, held against tables written by hand."""

import re
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from latent_lab.schedule import Phase
from latent_lab.sequences import IGNORE, Encoded, LatentTokens, Role
from latent_lab.stages.icot import ICoT

TOKENS = LatentTokens(start=90, latent=91, end=92)
PROBLEM = Encoded("p", question=(1, 2, 3), steps=((10, 11), (20,), (30, 31, 32)), answer=(50, 51, 0))

REMOVED = {
    0: (10, 11, 20, 30, 31, 32),
    1: (11, 20, 30, 31, 32),
    2: (20, 30, 31, 32),
    4: (31, 32),
    6: (),
    7: (),
}


@pytest.mark.parametrize(("stage", "left"), REMOVED.items())
def test_tokens_go_one_by_one_from_the_left(stage: int, left: tuple[int, ...]) -> None:
    laid_out = ICoT().sequence(PROBLEM, TOKENS, stage)
    assert laid_out.ids == (1, 2, 3, *left, 50, 51, 0)
    assert laid_out.labels == (*[IGNORE] * 3, *left, 50, 51, 0)
    assert laid_out.roles == (*[Role.QUESTION] * 3, *[Role.STEP] * len(left), *[Role.ANSWER] * 3)
    assert ICoT().shape(PROBLEM, stage) == (0, 3, len(left) + 3)


def test_a_prompt_is_the_question() -> None:
    assert ICoT().prompt(PROBLEM, TOKENS, 4).ids == (1, 2, 3)
    assert ICoT().num_slots(4) == 0


def test_past_the_threshold_all_of_the_chain_is_gone() -> None:
    assert ICoT(remove_all_at=2).sequence(PROBLEM, TOKENS, 1, "0/0").ids[3:-3] in [(11, 20, 30, 31, 32), (20, 30, 31, 32)]
    assert ICoT(remove_all_at=2).sequence(PROBLEM, TOKENS, 2).ids == (1, 2, 3, 50, 51, 0)


def test_with_positions_kept_what_is_left_stays_where_it_was() -> None:
    kept = ICoT(keep_positions=True)
    assert ICoT().sequence(PROBLEM, TOKENS, 2).positions == tuple(range(10))
    assert kept.sequence(PROBLEM, TOKENS, 0).positions == tuple(range(12))
    # Of 10 11 20 30 31 32 at 3 to 8 two are gone; the question's last token has come to stand right before the rest.
    assert kept.sequence(PROBLEM, TOKENS, 2).positions == (0, 1, 4, 5, 6, 7, 8, 9, 10, 11)
    assert kept.prompt(PROBLEM, TOKENS, 2).positions == (0, 1, 4)
    assert kept.sequence(PROBLEM, TOKENS, 6).positions == (0, 1, 8, 9, 10, 11)


def test_the_gap_is_what_is_due_and_not_how_long_the_chain_was() -> None:
    kept = ICoT(keep_positions=True, remove_all_at=9)
    short = replace(PROBLEM, steps=((10,),))
    for problem in (PROBLEM, short):
        assert kept.sequence(problem, TOKENS, 7).gap == kept.prompt(problem, TOKENS, 7).gap == 7
        assert kept.sequence(problem, TOKENS, 9, "0/0").gap == kept.prompt(problem, TOKENS, 9).gap == 9


def test_no_row_is_longer_than_its_chain_or_what_is_due() -> None:
    kept = ICoT(keep_positions=True, smoothing=0.1)
    for due in (2, 6, 7):
        rows = [kept.sequence(replace(PROBLEM, id=f"p{i}"), TOKENS, due, "0/0") for i in range(100)]
        assert max(row.positions[-1] for row in rows) == 11 + max(due - 6, 0)


def test_what_smoothing_takes_leaves_its_positions_free_as_well() -> None:
    kept = ICoT(keep_positions=True, smoothing=1.0)
    gaps = [kept.sequence(named(i), TOKENS, 5, "0/0").gap for i in range(300)]
    assert gaps == [kept.removed(named(i), 5, "0/0") for i in range(300)]
    assert set(gaps) > {5, 6}


def named(number: int) -> Encoded:
    return replace(PROBLEM, id=f"p{number}", steps=(tuple(range(100)),))


def test_smoothing_removes_no_more_than_is_due_with_probability_982() -> None:
    n = 40_000
    more = Counter(ICoT().removed(named(i), 5, "0/0") - 5 for i in range(n))
    for k, share in ((0, 0.98168), (1, 0.01798), (2, 0.00033)):  # (1 - e^-4) e^(-4 k)
        assert more[k] / n == pytest.approx(share, abs=4 * (share * (1 - share) / n) ** 0.5)


def test_smoothing_follows_its_rate_and_can_be_turned_off() -> None:
    n = 10_000
    more = Counter(ICoT(smoothing=1.0).removed(named(i), 0, "0/0") for i in range(n))
    for k, share in ((0, 0.632), (1, 0.2325), (2, 0.0855)):
        assert more[k] / n == pytest.approx(share, abs=0.02)
    assert {ICoT(smoothing=0).removed(named(i), 5, "0/0") for i in range(1000)} == {5}


def test_what_is_drawn_depends_on_seed_epoch_stage_and_id_alone() -> None:
    draws = [ICoT(smoothing=1.0).removed(named(i), 3, "1/2") for i in range(300)]
    assert [ICoT(smoothing=1.0).removed(named(i), 3, "1/2") for i in reversed(range(300))][::-1] == draws
    for stage, draw in ((4, "1/2"), (3, "2/2"), (3, "1/3")):
        assert [ICoT(smoothing=1.0).removed(named(i), stage, draw) - stage for i in range(300)] != [d - 3 for d in draws]


def test_nothing_is_left_to_chance_without_a_draw() -> None:
    assert {ICoT(smoothing=0.01).removed(named(i), 5) for i in range(100)} == {5}


@pytest.mark.parametrize(
    ("options", "phases"),
    [
        # Two tokens an epoch for three epochs: 0, 1 | 2, 3 | 4, 5.
        (
            {"epochs": [3.0], "tokens_per_epoch": 2, "remove_all_at": None},
            [(0, 0.5, False), (1, 0.5, True), (2, 0.5, False), (3, 0.5, True), (4, 0.5, False), (5, 0.5, True)],
        ),
        # Everything goes once three are due, and what is left of the epochs follows.
        (
            {"epochs": [5.0], "tokens_per_epoch": 2, "remove_all_at": 3},
            [(0, 0.5, False), (1, 0.5, True), (2, 0.5, False), (3, 3.5, True)],
        ),
        ({"epochs": [4.0], "tokens_per_epoch": 0.5, "remove_all_at": 9}, [(0, 2.0, True), (1, 2.0, True)]),
        ({"epochs": [1.0], "tokens_per_epoch": 8, "remove_all_at": 0}, [(0, 1.0, True)]),
    ],
)
def test_the_schedule_is_the_tables(options: dict[str, Any], phases: list[tuple[int, float, bool]]) -> None:
    made = ICoT(**options).phases()
    assert [(p.stage, pytest.approx(p.epochs), p.is_validated) for p in made] == phases


def test_the_published_schedule_of_gsm8k_has_39_phases_of_an_eighth_of_an_epoch_and_a_long_last_one() -> None:
    phases = ICoT(epochs=[80.0], reset_optimizer="stage").phases()
    assert len(phases) == 40
    assert phases[:39] == [Phase(s, 0.125, True, False, s % 8 == 7) for s in range(39)]
    assert phases[39] == Phase(39, 80 - 39 / 8, True, False, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": [1.0, 2.0]}, "epochs=[1.0, 2.0]: give one number, the passes in all"),
        ({"tokens_per_epoch": 0}, "tokens_per_epoch=0: allowed are numbers above 0"),
        ({"remove_all_at": -1}, "remove_all_at=-1: allowed are 0 and more, or null"),
        ({"smoothing": -1.0}, "smoothing=-1.0: allowed are 0 (off) and more"),
    ],
)
def test_an_impossible_schedule_says_what_is_allowed(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ICoT(**options)
