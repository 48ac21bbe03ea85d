"""Every method trains, is graded, and answers from its checkpoint as it did in training; every recipe takes a few steps."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from latent_lab.job import job
from latent_lab.overrides import options
from tests.tiny import evaluate, result, rows, save_hub_model, timeless, train

GRAPHS = (
    "model=symbolic", "model.layers=1", "model.width=32", "model.heads=2", "model.positions=256", "dataset=prosqa_symbolic",
    "dataset.train_size=24", "dataset.valid_size=9", "dataset.test_size=8", "batch_size=8", "device=cpu", "log_every=1",
)  # fmt: skip
SUMS = (
    "model.layers=1", "model.width=32", "model.heads=2", "model.positions=128", "dataset.digits=[2]",
    "dataset.probabilities=[1.0]", "dataset.train_size=24", "dataset.valid_size=9", "dataset.test_size=8",
    "batch_size=8", "device=cpu", "log_every=1",
)  # fmt: skip
METHODS = [name for name in options("stage") if not name.isdigit() and name != "oracle"]  # reads another run: test_thoughts.py
SHORT: dict[str, list[str]] = {
    "icot": ["stage.epochs=[2]", "stage.tokens_per_epoch=2"],
    "codi": ["stage.epochs=[1]", "stage.thoughts=3"],
    "demo": ["stage.epochs=[0.34]"],
}


def base(name: str) -> tuple[str, ...]:
    return GRAPHS if name in ("superposition", "coconut_bfs") else SUMS


@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_and_answers_from_its_checkpoint_as_it_did_in_training(name: str, tmp_path: Path) -> None:
    run = train(tmp_path, f"stage={name}", *SHORT.get(name, ["stage.epochs=[0.34]"]), base=base(name))
    again = evaluate(run, "split=valid", f"out={tmp_path / 'again'}")
    stored = result(run)
    for key in ("accuracy", "floors", "teacher_forced_exact", "thoughts_per_answer", "tokens_per_answer"):
        assert again[key] == stored[key], key
    assert rows(tmp_path / "again" / "samples.jsonl") == rows(run / "samples.jsonl")
    assert again.get("process") == stored.get("process")
    named = [row.get("process") for row in rows(run / "samples.jsonl")]
    counted = {name: round(share["value"] * 9) for name, share in stored.get("process", {None: {"value": 1}}).items()}
    assert {name: count for name, count in counted.items() if count} == Counter(named)
    assert (None in counted) == (base(name) is SUMS)


VARIANTS = [
    ["stage.feedback=before_norm"],
    ["stage.projection=mlp", "stage.match_norm=true"],
    ["stage.projection=linear", "stage.detach=true"],
    ["stage.rounds=2"],
    ["stage.answer_sees=thoughts", "stage.max_stage=2"],
    ["stage.answer_sees=vectors", "stage.max_stage=2"],
    ["stage.answer_sees=vectors", "stage.max_stage=2", "stage.rounds=2"],
    ["stage.train_stop=true", "stage.pad=chain"],
    ["stage.supervision=1", "stage.projection=mlp"],
    ["stage.kind=pause", "stage.supervision=1", "stage.decoder=linear"],
    ["stage.latents_from=end", "stage.rounds=2"],
    ["stage.mix=0.5", "stage.mix_from=chain", "stage.pad=published_mismatch"],
    ["stage.reset_optimizer=every_epoch_as_published"],
    ["peft=lora", "peft.rank=2"],
    ["model.gradient_checkpointing=true"],
    ["peft=prefix", "peft.num_tokens=2", "stage.rounds=2", "model.gradient_checkpointing=true"],
    ["peft=prompt", "peft.num_tokens=2", "stage.answer_sees=vectors", "stage.max_stage=2", "stage.supervision=1"],
    ["stage.template=alpaca", "stage.instruction=Add."],
]
PLANS = [
    ["plan=general"],
    ["plan=arithmetic"],
    ["plan=arithmetic", "stage.stages=[0,2]", "stage.supervision=1"],
    ["plan=arithmetic", "stage.place=front"],
    ["plan=arithmetic", "stage.place=plan_first", "stage.rows_from=random"],
    ["plan=arithmetic", "stage.place=plan_only", "stage.plan_weight=0.5"],
    ["plan=shuffled", "stage.rows_from=centroid"],
    ["plan=position", "stage.rows_from=mean_noise"],
    ["plan=tfidf", "plan.least=0", "stage.answer_weight=2"],
    ["plan=arithmetic", "peft=lora", "peft.rank=2"],
    ["plan=arithmetic", "peft=lora", "peft.rank=2", "peft.rows=false"],
    ["plan=arithmetic", "peft=rows"],
]


@pytest.mark.parametrize("overrides", VARIANTS, ids=" ".join)
def test_a_variant_answers_from_its_checkpoint_as_it_did_in_training(overrides: list[str], tmp_path: Path) -> None:
    settings = ["stage=coconut", "stage.stages=[0,2]", "stage.epochs=[0.34]", *overrides]
    run = train(tmp_path, *settings, base=SUMS)
    again = evaluate(run, "split=valid", f"out={tmp_path / 'again'}")
    assert (again["accuracy"], again["floors"]) == (result(run)["accuracy"], result(run)["floors"])
    assert rows(tmp_path / "again" / "samples.jsonl") == rows(run / "samples.jsonl")


@pytest.mark.parametrize("overrides", PLANS, ids=" ".join)
def test_a_plan_answers_from_its_checkpoint_as_it_did_in_training(overrides: list[str], tmp_path: Path) -> None:
    run = train(tmp_path, "stage=planning", "stage.epochs=[0.67]", *overrides, base=SUMS)
    again = evaluate(run, "split=valid", f"out={tmp_path / 'again'}")
    assert (again["accuracy"], again["plans"]) == (result(run)["accuracy"], result(run)["plans"])
    assert rows(tmp_path / "again" / "samples.jsonl") == rows(run / "samples.jsonl")


def test_the_same_plans_end_with_the_same_bytes(tmp_path: Path) -> None:
    settings = ["stage=planning", "plan=random", "stage.rows_from=random", "stage.epochs=[0.34]", "seed=3"]
    first, second = (train(tmp_path / name, *settings, base=SUMS) for name in ("a", "b"))
    assert timeless(first) == timeless(second)
    assert (first / "checkpoint" / "plan.json").read_bytes() == (second / "checkpoint" / "plan.json").read_bytes()


def test_clusters_are_those_of_a_finished_run_and_are_found_once(tmp_path: Path) -> None:
    plain = train(tmp_path, "stage=planning", "stage.epochs=[0.34]", base=SUMS)
    settings = ["stage=planning", "plan=kmeans", f"plan.model={plain.name}", "plan.clusters=3", "stage.epochs=[0.34]"]
    first, second = (train(tmp_path, *settings, f"seed={seed}", base=SUMS) for seed in (1, 2))
    assert result(first)["plans"]["hash"] == result(second)["plans"]["hash"]
    assert len(list((tmp_path / ".plans").iterdir())) == 1
    again = evaluate(first, "split=valid", f"out={tmp_path / 'again'}")
    assert again["plans"] == result(first)["plans"]
    assert evaluate(first, f"out={tmp_path / 'test'}")["plans"]["well_formed"]["n"] == 8


def test_a_model_trained_with_tokens_that_writes_none_raises_the_alarm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = ["stage=planning", "plan=arithmetic", "stage.plan_weight=0", "stage.rows_from=mean", "stage.epochs=[3]"]
    plans = result(train(tmp_path, *settings, base=SUMS))["plans"]
    assert (plans["writes_any"]["value"], plans["alarm"]) == (0.0, "no planning token was written")
    assert "alarm: this model was trained with planning tokens and wrote none in 9 replies" in caplog.messages


def test_a_projection_goes_on_where_the_stage_before_left_it(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    first = train(tmp_path, "stage=0", "stage.projection=mlp", "stage.epochs=[0.34]", base=SUMS)
    start = f"init_from={first / 'checkpoint'}"
    second = train(tmp_path, "stage=1", "stage.projection=mlp", "stage.epochs=[0.34]", "optim.lr=1e-12", start, base=SUMS)
    before, after = (load_file(run / "checkpoint" / "feedback.safetensors") for run in (first, second))
    assert before.keys() == after.keys()
    assert all((before[key] - after[key]).abs().max() < 1e-6 for key in before)


def test_pause_tokens_have_no_thoughts_to_replace(tmp_path: Path) -> None:
    run = train(tmp_path, "stage=pause", "stage.epochs=[0.34]", base=SUMS)
    assert list(result(run)["floors"]) == ["majority", "thoughts_removed"]


def test_a_model_that_was_taught_to_stop_decides_how_long_it_thinks(tmp_path: Path) -> None:
    settings = ["stage=coconut", "stage.stages=[3]", "stage.curriculum=false", "stage.train_stop=true", "stage.pad=chain"]
    digits = ["dataset.digits=[1,2]", "dataset.probabilities=[0.5,0.5]"]
    run = train(tmp_path, *settings, *digits, "stage.epochs=[40]", "eval_every=999", "optim.lr=3e-3", base=SUMS)
    graded = rows(run / "samples.jsonl")
    assert all(0 <= row["thoughts"] <= 3 for row in graded)
    assert len({row["thoughts"] for row in graded}) > 1
    by_digits = [[row["thoughts"] for row in graded if row["digits"] == count] for count in (1, 2)]
    assert max(by_digits[0]) <= min(by_digits[1])  # the shorter the sum, the fewer thoughts
    fixed = evaluate(run, "split=valid", "task.thoughts=fixed", f"out={tmp_path / 'fixed'}")
    assert (fixed["thoughts_per_answer"], fixed["slots"]) == (3.0, 3)
    assert evaluate(run, "split=valid", f"out={tmp_path / 'free'}")["slots"] == "model"


# Recipes


def small(name: str, tmp_path: Path) -> list[str]:
    """Overrides that keep a recipe's method and shrink everything else."""
    config: Any = job("train", [f"experiment={name}"]).plain
    overrides = [
        "limit=8",
        "batch_size=4",
        "max_steps=3",
        "eval_batch_size=8",
        f"outputs={tmp_path}",
        "device=cpu",
        "precision=fp32",
    ]
    if config["init_from"]:
        overrides += ["init_from=null"]
    if config["model"]["_target_"].endswith("Pretrained"):
        family = "llama" if config["stage"]["_target_"].endswith("Planning") else "gpt2"  # untied tables need both their rows
        overrides += ["model=folder", f"model.path={save_hub_model(tmp_path / 'model', family)}"]
    else:
        overrides += ["model.layers=1", "model.width=32", "model.heads=2"]
    if "train_size" in config["dataset"]:
        overrides += ["dataset.train_size=16", "dataset.valid_size=8", "dataset.test_size=8"]
        overrides += ["dataset.nodes=8", "dataset.max_hops=3", "dataset.balance=none"] if "nodes" in config["dataset"] else []
        overrides += ["dataset.hops=1"] if "hops" in config["dataset"] else []
    else:
        tag = "[reason]: " if name == "memory_reason" else ""
        record = {"question": "Tom has 3 and 4.", "steps": [f"{tag}<<3+4=7>>", f"{tag}<<7-2=5>>"], "answer": "5"}
        for split in ("train", "valid", "test"):
            lines = [json.dumps(record | {"question": f"{split} {i}: Tom has 3 and 4."}) for i in range(8)]
            (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
        overrides += ["dataset=file", f"dataset.path={tmp_path}", "dataset.steps=steps"]
    return overrides


@pytest.mark.parametrize("name", [name for name in options("experiment") if not name.startswith("oracle")])
def test_every_recipe_takes_a_few_steps(name: str, tmp_path: Path) -> None:
    run = train(tmp_path, f"experiment={name}", *small(name, tmp_path), f"name={name}", base=())
    assert result(tmp_path / name)["steps"] in (1, 2, 3)
    assert run.exists() or (tmp_path / name).exists()


@pytest.mark.parametrize("name", [name for name in options("experiment") if name.endswith("_small")])
def test_a_small_recipe_has_a_large_twin_and_the_same_method(name: str) -> None:
    # Tables and a study of their own, and what twins start from.
    starts = ("recall_small", "recall_prontoqa_small", "multiplication_small")
    if name in ("addition_small", "gsm_hard_small", "planning_small", *starts):
        return
    twin = name.removesuffix("_small")
    assert twin in options("experiment")
    large, little = (job("train", [f"experiment={each}"]).config.stage for each in (twin, name))
    assert type(large) is type(little)
    for setting in ("kind", "latents_from", "labels"):
        assert getattr(large, setting, None) == getattr(little, setting, None)
