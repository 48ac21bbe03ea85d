"""Interventions: what changes nothing scores as clean, donors and groups are what they say, a clean accuracy is in every row."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from latent_lab.grading.session import Session, session
from latent_lab.grading.task import Answers
from latent_lab.job import job
from latent_lab.thoughts import interventions
from latent_lab.thoughts.bench import Bench, bench, divergence
from latent_lab.thoughts.editing import KINDS, Written, noise_like
from latent_lab.thoughts.grammar import ADDITION
from latent_lab.thoughts.interventions import (
    TrainMeans,
    class_means,
    covariance_matched,
    early_exit,
    intervention_report,
    means_of,
    without,
)
from latent_lab.thoughts.store import ThoughtStore, collect
from tests.tiny import train

METHODS = {
    "closed": ("stage=coconut", "stage.answer_sees=thoughts"),
    "pause": ("stage=pause",),
}


@pytest.fixture(scope="module", params=METHODS)
def at(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Session, ThoughtStore]]:
    folder = tmp_path_factory.mktemp("outputs")
    run: Path = train(folder, *METHODS[request.param], "stage.stages=[0,3]", "stage.max_stage=3", "stage.epochs=[1]")
    asked = job("eval", [f"run={run}", "device=cpu", "batch_size=4", f"out={folder}/e"])
    with session(asked, Answers(max_new_tokens=5)) as opened:
        known = opened.trained.dataset.load("train")
        ids = opened.trained.stage.encode(known, opened.solver.backbone.tokenizer)
        yield opened, collect(folder / "store", opened.solver, known, ids)


def made(opened: Session) -> Bench:
    return bench(opened.solver, opened.problems, opened.trained.stage.encode(opened.problems, opened.solver.backbone.tokenizer))


def test_a_problem_that_is_its_own_donor_keeps_its_answer(at: tuple[Session, ThoughtStore]) -> None:
    b = made(at[0])
    own = torch.arange(len(b.problems))
    for kind in KINDS if b.feeds else ("cache", "step", "residual"):
        for slots in ([0], [1, 2]):
            same = b.run(b.transplanted(own, kind, slots, block=1))
            assert same.ids == b.clean.ids
            assert max(divergence(b.clean, same)) < 1e-4
            row = b.row(same)
            assert row["flips"]["value"] == 0
            assert row["accuracy"] == row["clean"]


def test_donors_are_other_problems_and_what_they_hold_is_theirs(at: tuple[Session, ThoughtStore]) -> None:
    b = made(at[0])
    donors = b.donors([""] * len(b.problems), seed=0)
    assert all(i != j for i, j in enumerate(donors.tolist()))
    kept = b.gathered(donors, "cache")
    for row, donor in enumerate(donors.tolist()):
        part = next(k for k, (rows, _) in enumerate(b.parts) if rows.start <= donor < rows.stop)
        assert torch.equal(kept.keys[2][row], b.kept[part].keys[2][donor - b.parts[part][0].start])
    if b.feeds:
        torch.testing.assert_close(b.gathered(donors, "thought").thoughts[1], b.thoughts()[donors, 1])


def test_another_problems_whole_cache_brings_its_answer_where_nothing_else_is_seen(
    at: tuple[Session, ThoughtStore],
) -> None:
    b = made(at[0])
    donors = b.donors([""] * len(b.problems), seed=0)
    swapped = b.run(b.transplanted(donors, "cache", range(b.slots)))
    is_closed = b.parts[0][1].batch.is_closed is not None
    assert not is_closed or swapped.ids == [b.clean.ids[i] for i in donors.tolist()]


def test_the_report_is_json_with_a_clean_accuracy_in_every_row(at: tuple[Session, ThoughtStore]) -> None:
    opened, store = at
    ids = opened.trained.stage.encode(opened.problems, opened.solver.backbone.tokenizer)
    report = intervention_report(opened.solver, opened.problems, ids, store, ADDITION, orders=2)
    assert json.loads(json.dumps(report)) == report
    assert set(report["sweep"]) == {"0", "1", "2", "3", "4", "5"}
    assert report["sweep"]["3"]["flips"]["value"] == 0

    def rows(node: Any) -> Iterator[dict[str, Any]]:
        if isinstance(node, dict):
            if "flips" in node and "accuracy" in node and isinstance(node["accuracy"], dict):
                yield node
            for child in node.values():
                yield from rows(child)
        elif isinstance(node, list):
            for child in node:
                yield from rows(child)

    found = list(rows(report))
    assert len(found) > 10
    assert all({"value", "n", "low", "high"} <= row[key].keys() for row in found for key in ("accuracy", "flips", "kl", "clean"))
    if report["feeds"]:
        assert set(report["thoughts"]) == {
            "zero", "mean", "noise", "cov_noise", "filler", "transplant", "transplant_same_length", "remove"
        }  # fmt: skip
        assert all(set(each) == {"0", "1", "2", "all"} for each in report["thoughts"].values())
        assert len(report["permute"]["orders"]) == 2
        assert set(report["tracing"]) == {"cache", "step", "thought", "residual_1", "residual_2"}
    else:
        assert set(report["tracing"]) == {"cache", "step"}


def test_batches_change_nothing(at: tuple[Session, ThoughtStore]) -> None:
    b = made(at[0])
    at[0].solver.batch_size = 11
    whole = made(at[0])
    at[0].solver.batch_size = 4
    donors = b.donors([""] * len(b.problems), seed=1)
    assert whole.clean.ids == b.clean.ids
    assert whole.run(whole.transplanted(donors, "cache", [0])).ids == b.run(b.transplanted(donors, "cache", [0])).ids


# By hand


def test_when_the_answer_is_reached() -> None:
    class Two:
        pass

    counts = [Written([[1]] * 2, list(answers), [False] * 2) for answers in (("7", "1"), ("5", "7"), ("7", "7"))]
    found = early_exit(Two(), counts)  # type: ignore[arg-type]
    assert found["first"] == {"mean": 0.5, "counts": {"0": 1, "1": 1, "2": 0}}
    assert found["stable"] == {"mean": 1.5, "counts": {"0": 0, "1": 1, "2": 1}}


def test_the_divergence_is_in_bits() -> None:
    clean = Written([], [], [], torch.tensor([[0.5, 0.5]]).log())
    other = Written([], [], [], torch.tensor([[0.25, 0.75]]).log())
    assert divergence(clean, clean) == [0.0]
    assert divergence(clean, other)[0] == pytest.approx(0.5 * 1.0 + 0.5 * -0.5849625, abs=1e-5)


def test_noise_is_as_long_as_what_it_replaces_and_as_wide_as_training_thoughts(at: tuple[Session, ThoughtStore]) -> None:
    vectors = torch.randn(5, 3, 16)
    torch.testing.assert_close(noise_like(vectors, torch.Generator().manual_seed(0)).norm(dim=-1), vectors.norm(dim=-1))
    store = at[1]
    drawn = covariance_matched(store, torch.Size((4000, 3, 32)), torch.Generator().manual_seed(0))
    real = store.layer(0)[:, 1]
    assert (drawn[:, 1].mean(0) - real.mean(0)).norm() < 0.1 * real.norm(dim=1).mean()
    torch.testing.assert_close(drawn[:, 1].T.cov(), real.T.cov(), atol=0.1 * float(real.T.cov().diagonal().max()), rtol=0.2)
    torch.testing.assert_close(means_of(store, 4)[1], real.mean(0))
    assert not means_of(store, 4)[3].any()


def test_a_subspace_taken_out_leaves_the_centre_there_and_the_rest_alone() -> None:
    groups = {("", ("0",)): torch.tensor([1.0, 0, 5]), ("", ("1",)): torch.tensor([-1.0, 0, 5])}
    basis, centre = class_means(groups)
    assert basis.shape == (3, 1)
    assert basis[:, 0].abs().tolist() == pytest.approx([1, 0, 0], abs=1e-6)
    left = without(basis, centre)(slice(None), 0, torch.tensor([[3.0, 4, 7]]))
    torch.testing.assert_close(left, torch.tensor([[0.0, 4, 7]]))


@pytest.mark.parametrize("at", ["closed"], indirect=True)  # nothing is fed into pause tokens
def test_erasure_stands_beside_the_means_directions_each_with_as_many_random_ones(
    at: tuple[Session, ThoughtStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, store = at
    b, means = made(opened), TrainMeans(opened.solver, store, ADDITION)
    thoughts, labels = means.labelled(0, 0, "carry_out")
    said = [int(ADDITION.labels(p.steps)[0]["carry_out"]) for p in store.problems]
    assert sorted(labels.tolist()) == sorted(said)
    torch.testing.assert_close(thoughts[labels == 1].mean(0), store.layer(0)[torch.tensor(said) == 1, 0].mean(0))
    monkeypatch.setattr(interventions, "SMALLEST_GROUP", 4)
    row = interventions.subspaces(b, means, seed=0)["carry_out"]["0"]
    assert row.keys() == {"n", "rank", "leace_rank", "removed", "random", "leace", "leace_random"}
    assert (row["n"], row["rank"], row["leace_rank"]) == (len(b.problems), 1, 1)


def test_means_are_of_problems_that_say_the_same(at: tuple[Session, ThoughtStore]) -> None:
    opened, store = at
    means = TrainMeans(opened.solver, store, ADDITION)
    found = means.means(0, 0, "carry_out")
    for (stratum, (value,)), mean in found.items():
        chosen = [i for i, p in enumerate(store.problems) if ADDITION.labels(p.steps)[0]["carry_out"] == value]
        assert stratum == "2"
        assert len(chosen) >= 20
        torch.testing.assert_close(mean, store.layer(0)[chosen, 0].mean(0))
    assert set(means.keys) == {"a", "b", "carry_in", "total", "write", "carry_out", "result", "operands"}
