"""Erasure: no linear reader is left anything of the labels, what has nothing to do with them stays, and nothing moves in vain."""

import torch

from latent_lab.thoughts.erasure import leace
from latent_lab.thoughts.probe_fit import fit_all
from tests.thoughts.planted import noise

LABELS = torch.arange(600) % 3
OTHERS = torch.arange(600) // 300
NOBODY = torch.zeros(600, dtype=torch.bool)


def vectors() -> torch.Tensor:
    """Correlated noise in which three labels and two others stand in directions of their own."""
    mixing = torch.eye(16) + 0.3 * noise(16, 16, seed=1)
    x = noise(600, 16, seed=0) @ mixing
    return x + 3 * noise(3, 16, seed=2)[LABELS] + 3 * noise(2, 16, seed=3)[OTHERS]


def read(x: torch.Tensor, labels: torch.Tensor) -> float:
    """How often a linear probe is right on what it was fitted on."""
    probe = fit_all(x, {"f": labels}, {"f": 3}, NOBODY)["f"]
    return float((probe.log_probabilities(x).argmax(1) == labels).float().mean())


def test_after_erasure_a_linear_probe_is_at_chance_on_its_own_training_set() -> None:
    x = vectors()
    assert read(x, LABELS) > 0.95
    left = leace(x, LABELS)(x)
    means = torch.stack([left[label == LABELS].mean(0) for label in range(3)])
    torch.testing.assert_close(means, left.mean(0).expand(3, -1), atol=1e-4, rtol=0)
    assert read(left, LABELS) < 0.40
    assert read(left, OTHERS) > 0.95, "what the labels have nothing to do with is as readable as before"


def test_as_many_random_directions_leave_the_labels_readable() -> None:
    x = vectors()
    erased, random = leace(x, LABELS), leace(x, LABELS, torch.Generator().manual_seed(0))
    assert erased.rank == random.rank == 2
    assert read(random(x), LABELS) > 0.9


def test_erasing_twice_is_erasing_once_and_the_mean_stays() -> None:
    x = vectors()
    erased = leace(x, LABELS)
    once = erased(x)
    torch.testing.assert_close(erased(once), once, atol=1e-3, rtol=0)
    torch.testing.assert_close(once.mean(0), x.mean(0), atol=1e-4, rtol=0)


def test_labels_that_stand_along_two_axes_at_once_are_taken_out_of_both() -> None:
    """Along the first and, twice as far, along the second; nowhere in the third."""
    first = torch.tensor([1.0, 1, -1, -1])
    x = torch.stack([first + torch.tensor([0.5, -0.5, 0.5, -0.5]), 2 * first, torch.tensor([0.0, 1, 1, 0])], dim=1)
    left = leace(x, (first < 0).long())(x)
    for side in (first > 0, first < 0):
        torch.testing.assert_close(left[side].mean(0), x.mean(0), atol=1e-5, rtol=0)


def test_vectors_that_do_not_vary_have_nothing_to_erase() -> None:
    x = torch.ones(6, 4)
    erased = leace(x, torch.arange(6) % 2)
    assert erased.rank == 0
    torch.testing.assert_close(erased(x), x)
