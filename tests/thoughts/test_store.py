"""The thought store holds what the model holds, whatever the batches, and a killed collection goes on."""

from pathlib import Path

import pytest
import torch

from latent_lab.grading.session import session
from latent_lab.grading.task import Answers
from latent_lab.job import job
from latent_lab.thoughts import store
from latent_lab.thoughts.store import StoreError, collect, layer_numbers, open_store
from tests.tiny import train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("outputs"), "stage=coconut", "stage.stages=[0,2]", "stage.epochs=[1]")


def collected(run: Path, folder: Path, batch_size: int = 4, **options: object) -> store.ThoughtStore:
    asked = job("eval", [f"run={run}", "device=cpu", f"batch_size={batch_size}", f"out={folder}-eval", "overwrite=true"])
    with session(asked, Answers()) as at:
        encoded = at.trained.stage.encode(at.problems, at.solver.backbone.tokenizer)
        return collect(folder, at.solver, at.problems, encoded, **options)  # type: ignore[arg-type]


def test_a_store_has_a_row_and_a_vector_for_every_slot_of_every_problem(run: Path, tmp_path: Path) -> None:
    made = collected(run, tmp_path / "store", layers=[0, 0.5, -1], identity={"weights": "w"})
    assert made.layers == (0, 1, 2)
    assert made.layer(0).shape == (11, 2, 32)
    assert made.num_slots.tolist() == [2] * 11
    assert made.manifest["weights"] == "w"
    assert set(made.rows[0]) == {"id", "question", "steps", "gold", "answer", "output", "correct", "num_slots", "meta"}
    assert [p.id for p in made.problems] == [f"test-{i}" for i in range(11)]
    again = open_store(tmp_path / "store")
    assert torch.equal(again.layer(2), made.layer(2))


def test_batches_and_shards_do_not_change_what_is_stored(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = collected(run, tmp_path / "whole", batch_size=11, layers=[0, 2])
    monkeypatch.setattr(store, "SHARD", 3)
    cut = collected(run, tmp_path / "cut", batch_size=2, layers=[0, 2])
    assert len(cut.manifest["shards"]) == 4
    for layer in (0, 2):
        torch.testing.assert_close(cut.layer(layer), whole.layer(layer), atol=1e-5, rtol=1e-5)
    assert cut.rows == whole.rows


def test_a_killed_collection_goes_on_and_another_one_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "SHARD", 3)
    folder = tmp_path / "store"
    whole = collected(run, folder)
    kept = (folder / "shard-00000.safetensors").stat().st_mtime_ns
    (folder / "store.json").unlink()
    (folder / "shard-00002.safetensors").unlink()
    with pytest.raises(StoreError, match="no complete store"):
        open_store(folder)
    again = collected(run, folder)
    assert torch.equal(again.layer(0), whole.layer(0))
    assert (folder / "shard-00000.safetensors").stat().st_mtime_ns == kept
    with pytest.raises(StoreError, match="its layers differ"):
        collected(run, folder, layers=[1])


@pytest.mark.parametrize(("wanted", "found"), [([0, 0.5, -1], (0, 6, 12)), ([0.0, 1.0, 12], (0, 12)), ([3, 3], (3,))])
def test_layers_by_number_and_by_fraction(wanted: list[int | float], found: tuple[int, ...]) -> None:
    assert layer_numbers(wanted, 12) == found


@pytest.mark.parametrize(("wanted", "said"), [([1.5], "from 0.0 to 1.0"), ([13], "allowed are 0"), ([-14], "allowed are 0")])
def test_layers_that_do_not_exist(wanted: list[int | float], said: str) -> None:
    with pytest.raises(StoreError, match=said):
        layer_numbers(wanted, 12)
