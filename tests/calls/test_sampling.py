"""Drawing tokens: each row from its own seed at its own temperature, from all tokens or the likeliest alone."""

from collections import Counter

import pytest
import torch
from torch import Tensor

from latent_lab.calls.sampling import Drawn, sampled

CHANCES = (0.5, 0.1, 0.3, 0.1)
"""Of four tokens."""
ROWS = 2000


def scores(rows: int = ROWS) -> Tensor:
    return torch.tensor([CHANCES] * rows).log()


def drawn(temperature: float, top_p: float | None = None, top_k: int | None = None) -> Counter[int]:
    """How often each token is drawn by so many seeds."""
    made = Drawn(range(ROWS), [temperature] * ROWS, top_p, top_k)
    return Counter(made(torch.zeros(ROWS, 1, dtype=torch.long), scores()).argmax(-1).tolist())


@pytest.mark.parametrize(
    ("top_p", "top_k", "expected"),
    [
        (None, None, {0: 0.5, 1: 0.1, 2: 0.3, 3: 0.1}),
        (None, 2, {0: 0.625, 2: 0.375}),
        (0.7, None, {0: 0.625, 2: 0.375}),
        (0.5, None, {0: 1.0}),
        (0.7, 1, {0: 1.0}),
        (1.0, 9, {0: 0.5, 1: 0.1, 2: 0.3, 3: 0.1}),
        (0.6, 2, {0: 1.0}),  # of the two likeliest the first holds 0.625
    ],
)
def test_what_is_drawn_has_the_chances_of_what_is_left(
    top_p: float | None, top_k: int | None, expected: dict[int, float]
) -> None:
    found = drawn(1.0, top_p, top_k)
    assert set(found) == set(expected)
    for token, chance in expected.items():
        assert found[token] / ROWS == pytest.approx(chance, abs=0.04)


def test_chances_are_left_over_by_the_temperature() -> None:
    # At temperature 0.5 chances are squared: 25, 1, 9 and 1 of 36, so that the first two hold 34 of 36.
    assert set(drawn(1.0, top_p=0.85)) == {0, 1, 2} or set(drawn(1.0, top_p=0.85)) == {0, 2, 3}
    assert set(drawn(0.5, top_p=0.85)) == {0, 2}


def test_every_row_has_its_own_temperature_and_0_is_greedy_whoever_stands_beside() -> None:
    given = scores(3)
    ids = torch.zeros(3, 1, dtype=torch.long)
    mixed = Drawn([7, 8, 9], [0.0, 1.0, 0.5])(ids, given)
    assert mixed[0].tolist() == given[0].tolist()
    assert mixed[1:2].tolist() == Drawn([8], [1.0])(ids[:1], given[:1]).tolist()
    kept = Drawn([7, 8, 9], [0.0, 1.0, 0.5])
    kept.keep([2])
    assert mixed[2:].tolist() == kept(ids[:1], given[:1]).tolist()


def test_nothing_is_drawn_where_all_rows_are_greedy() -> None:
    assert sampled([1, 2], [0.0, 0.0]) == {}
    assert list(sampled([1, 2], [0.0, 0.3])) == ["logits_processor"]
