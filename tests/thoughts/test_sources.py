"""Sources: each control gives what it says and never a vector of the problem asked about."""

import pytest
import torch

from latent_lab.thoughts.sources import SOURCES, Vectors

N, WIDTH = 40, 6


def vectors(**more: torch.Tensor) -> Vectors:
    real = torch.randn(N, WIDTH, generator=torch.Generator().manual_seed(0))
    return Vectors(
        real=real,
        slots=[i % 2 for i in range(N)],
        problems=[f"p{i // 2}" for i in range(N)],
        strata=[f"{i % 2}/{i % 3}" for i in range(N)],
        labels=[str(i % 5) for i in range(N)],
        means=torch.stack([torch.full((WIDTH,), 1.0), torch.full((WIDTH,), 2.0)]),
        **more,
    )


def test_the_names_are_those_the_vectors_allow() -> None:
    assert set(SOURCES) - set(vectors().names) == {"start", "other_seed"}
    assert vectors(start=torch.zeros(N, WIDTH), other_seed=torch.zeros(N, WIDTH)).names == tuple(SOURCES)
    with pytest.raises(ValueError, match="source=start: allowed here are real"):
        vectors().source("start")


def test_simple_sources() -> None:
    v = vectors(start=torch.ones(N, WIDTH))
    assert v.source("real") is v.real
    assert v.source("none") is None
    assert v.source("text_only") is None
    assert v.source("zero").count_nonzero() == 0  # type: ignore[union-attr]
    assert v.source("mean")[:4, 0].tolist() == [1.0, 2.0, 1.0, 2.0]  # type: ignore[index]
    torch.testing.assert_close(v.source("random").norm(dim=1), v.real.norm(dim=1))  # type: ignore[union-attr]
    assert v.source("start") is v.start


@pytest.mark.parametrize(("name", "kept"), [("shuffled", "slots"), ("shuffled_in_stratum", "strata"), ("label_swapped", "slots")])
def test_donors_are_other_problems_of_the_same_group(name: str, kept: str) -> None:
    v = vectors()
    given = v.source(name, seed=3)
    assert given is not None
    donors = [int((v.real == row).all(1).nonzero()[0]) for row in given]
    groups = getattr(v, kept)
    assert all(groups[i] == groups[j] and v.problems[i] != v.problems[j] for i, j in enumerate(donors))
    if name == "label_swapped":
        assert all(v.labels[i] != v.labels[j] for i, j in enumerate(donors))
    assert torch.equal(given, v.source(name, seed=3))
    assert not torch.equal(given, v.source(name, seed=4))


def test_one_alone_in_its_group_takes_a_vector_from_anybody_else() -> None:
    v = Vectors(torch.eye(3), [0, 0, 1], ["a", "b", "c"], ["x", "x", "y"], ["1", "1", "1"], torch.zeros(2, 3))
    assert v.donors(["x", "x", "y"], 0).tolist()[:2] == [1, 0]
    assert v.donors(["x", "x", "y"], 0).tolist()[2] in (0, 1)


def test_every_source_with_vectors_once_and_swapped_labels_field_by_field() -> None:
    v = vectors()
    labels = {"a": torch.arange(N) % 3, "always": torch.zeros(N, dtype=torch.long)}
    given = {(name, only): each for name, only, each in v.every(labels)}
    names = ("real", "zero", "mean", "random", "shuffled", "shuffled_in_stratum")
    assert tuple(given) == (*((name, None) for name in names), ("label_swapped", "a"))
    donors = given["label_swapped", "a"].donors_of("label_swapped", seed=3)
    assert donors is not None
    assert bool((labels["a"][donors] != labels["a"]).all())


def test_whose_vector_a_source_gives() -> None:
    v = vectors()
    for name in ("shuffled", "shuffled_in_stratum", "label_swapped"):
        donors, given = v.donors_of(name, seed=3), v.source(name, seed=3)
        assert donors is not None
        assert given is not None
        assert torch.equal(v.real[donors], given)
    assert v.donors_of("random") is v.donors_of("real") is None
