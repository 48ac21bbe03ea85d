"""Clustering plans: a step's vector is the mean of its own tokens' states, and a plan is learned once."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latent_lab.backbone import Pretrained
from latent_lab.plans import embedded
from latent_lab.plans.base import PlanError
from latent_lab.plans.clusters import KMeans
from latent_lab.plans.embedding import bounds, embed, folder_of
from latent_lab.problems import Problem
from latent_lab.problems.stories import Stories
from latent_lab.run import accelerator
from latent_lab.sequences import encode
from tests.tiny import evaluate, result, save_hub_model, train

TRAIN, VALID = (Stories(train_size=30, valid_size=10).load(split) for split in ("train", "valid"))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_hub_model(tmp_path_factory.mktemp("model"), "gpt2"))


def plan(model: str, outputs: Path, **settings: Any) -> KMeans:
    made = KMeans(model=model, clusters=3, **settings)
    made.outputs = outputs
    return made


def test_steps_are_bounded_by_their_tokens() -> None:
    assert bounds(3, [(7, 8), (9,)]) == [(3, 5), (5, 6)]
    assert bounds(3, []) == []


@pytest.mark.parametrize("layer", [0, 1, -1])
@pytest.mark.parametrize("in_context", [True, False])
def test_a_steps_vector_is_the_mean_over_its_tokens_one_problem_at_a_time(model: str, layer: int, in_context: bool) -> None:
    problems = [*TRAIN[:5], Problem("empty", "How many?", (), "3")]
    found = {pooling: embed(problems, model, layer=layer, pooling=pooling, in_context=in_context) for pooling in ("mean", "last")}
    backbone = Pretrained(path=model).load()
    backbone.model.eval()
    for number, p in enumerate(encode(problems, backbone.tokenizer)):
        assert found["mean"][number].shape == (len(p.steps), 32)
        before = list(p.question)
        for i, step in enumerate(p.steps):
            ids = torch.tensor([[*before, *step]]) if in_context else torch.tensor([step])
            with torch.no_grad():
                states = backbone.model(ids, output_hidden_states=True).hidden_states[layer][0, -len(step) :]
            np.testing.assert_allclose(found["mean"][number][i], states.mean(0), rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(found["last"][number][i], states[-1], rtol=1e-4, atol=1e-5)
            before += step


def test_a_layer_the_model_does_not_have_is_an_error(model: str) -> None:
    with pytest.raises(PlanError, match=r"^plan\.layer=3: the model at .* has 2 layers; allowed: 0 to that$"):
        embed(TRAIN[:1], model, layer=3, pooling="mean", in_context=True)


@pytest.mark.parametrize("settings", [{}, {"balanced": True}, {"scaling": "pca", "components": 4}, {"scaling": "none"}])
def test_what_was_fitted_comes_back_from_disk_with_equal_labels(model: str, tmp_path: Path, settings: dict[str, Any]) -> None:
    made = plan(model, tmp_path / "a", **settings)
    made.fit(TRAIN)
    assert set(made.kinds()) == {"answer", "assignment", "kmeans0", "kmeans1", "kmeans2"}
    assert sum(made.state["sizes"]) == sum(len(p.steps) for p in TRAIN)
    assert -1 < made.state["silhouette"] < 1
    made.save(tmp_path)
    again = plan(model, tmp_path / "b", **settings)  # another place, where nothing is remembered
    again.load(tmp_path)
    assert (again.hash(), again.labels(TRAIN), again.labels(VALID)) == (made.hash(), made.labels(TRAIN), made.labels(VALID))


def test_steps_are_embedded_once(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = plan(model, tmp_path)
    first.fit(TRAIN)
    labels = first.labels(TRAIN), first.labels(VALID)
    (folder,) = (tmp_path / ".plans").iterdir()
    assert len(json.loads((folder / embedded.LABELS).read_text())) == 40
    assert len(list(folder.iterdir())) == 3
    monkeypatch.setattr(KMeans, "_embed", None)  # no model is run any more
    second = plan(model, tmp_path)
    second.fit(TRAIN)
    assert (second.labels(TRAIN), second.labels(VALID)) == labels


def test_other_settings_problems_or_weights_are_another_plan(model: str, tmp_path: Path) -> None:
    other = str(save_hub_model(tmp_path / "other", "llama"))
    keys = {
        plan(model, tmp_path)._key(TRAIN),
        plan(model, tmp_path)._key(VALID),
        plan(model, tmp_path, layer=1)._key(TRAIN),
        plan(other, tmp_path)._key(TRAIN),
    }
    assert len(keys) == 4


def test_weights_in_several_files_are_told_apart_too(model: str, tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    backbone = Pretrained(path=model).load()
    backbone.tokenizer.save_pretrained(folder)
    backbone.model.save_pretrained(folder, max_shard_size="50KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    before = plan(str(folder), tmp_path)._key(TRAIN)
    assert plan(str(folder), tmp_path)._key(TRAIN) == before
    with torch.no_grad():
        next(iter(backbone.model.parameters()))[0] += 1
    backbone.model.save_pretrained(folder, max_shard_size="50KB")
    assert plan(str(folder), tmp_path)._key(TRAIN) != before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_steps_are_embedded_where_the_job_works(model: str) -> None:
    found, used = {}, {}
    for device in ("cpu", "cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.max_memory_allocated()
        with accelerator(device, "fp32"):
            found[device] = embed(TRAIN[:3], model, layer=-1, pooling="mean", in_context=True)
        used[device] = torch.cuda.max_memory_allocated() - before
    assert used["cpu"] == 0 < used["cuda"]
    for one, other in zip(*found.values(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-2, atol=1e-3)


def test_a_model_may_be_a_finished_run(model: str, tmp_path: Path) -> None:
    checkpoint = tmp_path / "stage=cot" / "checkpoint"
    checkpoint.mkdir(parents=True)
    (checkpoint / "config.json").touch()
    assert folder_of("stage=cot", tmp_path) == folder_of(str(tmp_path / "stage=cot"), Path("x")) == str(checkpoint)
    assert folder_of("org/name", tmp_path) == "org/name"


def test_without_a_model_the_same_run_without_tokens_is_trained_and_embeds(tmp_path: Path) -> None:
    settings = ("stage=planning", "stage.epochs=[0.2]", "seed=2")
    run = train(tmp_path, *settings, "plan=kmeans", "plan.clusters=2", "plan.layer=1", "name=mine")
    (other,) = {path.parent for path in tmp_path.glob("*/result.json")} - {run}
    assert json.loads((run / "checkpoint" / "plan.json").read_text())["state"]["model"] == other.name
    assert (result(other)["seed"], "plans" in result(other)) == (2, False)
    assert train(tmp_path, *settings, "plan=none") == other  # nothing is trained for it
    plans = evaluate(run, "split=test", "limit=3")["plans"]
    assert set(plans["kinds"]) >= {"bits", "bits_of_gold"}  # test steps are embedded
    assert plans["silhouette"] == json.loads((run / "checkpoint" / "plan.json").read_text())["state"]["silhouette"]


def test_outside_a_run_somebody_must_be_named_to_embed() -> None:
    with pytest.raises(
        PlanError, match=r"^plan\.model: given nothing; who embeds the steps: a finished run, a folder, or a name"
    ):
        KMeans().fit(TRAIN)


def test_more_clusters_than_steps_are_an_error(model: str, tmp_path: Path) -> None:
    made = KMeans(model=model, clusters=300)
    made.outputs = tmp_path
    with pytest.raises(PlanError, match=r"^plan\.clusters=300: the training problems have \d+ steps; allowed: up to that$"):
        made.fit(TRAIN)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "m", "pooling": "max"}, "pooling=max: allowed are mean, last"),
        ({"model": "m", "scaling": "max"}, "scaling=max: allowed are none, standard, pca"),
        ({"model": "m", "clusters": 1}, "clusters=1: allowed are 2 and more"),
        ({"model": "m", "components": 0}, "components=0: allowed are 1 and more"),
    ],
)
def test_an_impossible_setting_says_what_is_allowed(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        KMeans(**settings)
