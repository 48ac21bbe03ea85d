"""``task=plans`` on a model that has learned what its tokens announce, and on runs that announce nothing."""

import json
import random
import re
from pathlib import Path

import pytest

from latent_lab import checkpoint
from latent_lab.grading.session import Session, trained_config
from latent_lab.plans.base import PlanError
from latent_lab.plans.task import PlansTask
from latent_lab.problems import Problem
from tests.tiny import evaluate, rows, train

SETTINGS = (
    "stage=planning", "plan=arithmetic", "stage.num_prefix=0", "stage.num_special=1", "model.layers=1", "model.width=32",
    "model.heads=2", "model.positions=64", "optim.lr=1e-2", "optim.name=muon", "batch_size=32", "device=cpu", "threads=1",
)  # fmt: skip


def guesses(folder: Path) -> list[str]:
    """Problems whose questions tell nothing of their steps' operators: whoever knows them has them from the plan."""
    rng = random.Random(0)
    for split, size in (("train", 320), ("valid", 20), ("test", 60)):
        steps = [[f"2{rng.choice('+-*')}1 so", f"4{rng.choice('+-*')}3 so"] for _ in range(size)]
        lines = [{"question": f"Guess {i % 10}", "steps": each, "answer": "0"} for i, each in enumerate(steps)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return ["dataset=file", f"dataset.path={folder}"]


def test_a_model_does_what_is_announced_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = train(tmp_path, *SETTINGS, *guesses(tmp_path), "stage.epochs=[10]", "eval_every=100", base=())
    for step in (0, 1):
        drawn = ["task.votes=3"] if step else []
        found = evaluate(run, "task=plans", f"task.step={step}", *drawn, f"out={tmp_path / str(step)}")
        effects = found["effects"]
        assert (effects["step"], effects["n"], effects["kinds"]) == (step, 60, ["*", "+", "-"])
        assert effects["gold"]["as_gold"]["value"] > 0.95
        assert effects["exchanged"]["as_announced"]["value"] > 0.95
        assert effects["exchanged"]["changed"]["value"] > 0.95
        assert effects["exchanged"]["as_gold"]["value"] < 0.05
        assert effects["left_out"]["as_gold"]["value"] < 0.7  # a guess
        assert effects["gold"]["accuracy"]["value"] == 1.0
        assert all(each["as_announced"]["value"] > 0.95 for each in effects["forced"].values())
        assert sum(effects["forced"]["*"]["operators"].values()) == 60
        assert effects["forced"]["*"]["operators"]["*"] > 57
    assert found["whole_blocks"]["well_formed"]["value"] >= found["plans"]["well_formed"]["value"]
    assert found["whole_blocks"]["accuracy"]["n"] == 60
    assert found["plans"]["well_formed"]["value"] > 0.9
    assert found["plans"]["steps_as_gold"]["value"] < 0.6
    operators = found["plans"]["operators"]
    assert operators["bits"] == pytest.approx(found["plans"]["kinds"]["bits"], abs=0.1)  # the kind tells all
    assert len(rows(tmp_path / "1" / "samples.jsonl")) == 60
    assert found["votes"]["plans"]["different_plans"] > 1.5  # guesses, drawn
    assert (found["votes"]["plans"]["accuracy"]["value"], found["votes"]["greedy"]) == (1.0, 1.0)
    assert evaluate(run, "task=plans", "task.step=1", "task.votes=3", f"out={tmp_path / '1'}") == found
    monkeypatch.setattr(Session, "score", None)  # what cannot be is said before anything is graded
    with pytest.raises(PlanError, match=r"^task\.step=9: an exchange takes two kinds, 0 are announced there; allowed: another$"):
        evaluate(run, "task=plans", "task.step=9")


@pytest.mark.parametrize("settings", [["plan=none"], ["plan=general"], ["plan=arithmetic", "stage.place=plan_only"]])
def test_a_run_that_announces_no_single_step_is_refused(
    settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(tmp_path, *SETTINGS, *guesses(tmp_path), "limit=8", "stage.num_prefix=1", *settings, base=())
    monkeypatch.setattr(Session, "score", None)
    with pytest.raises(PlanError, match=r"announces no single steps; allowed: runs of stage=planning that do$"):
        evaluate(run, "task=plans")


def test_a_run_that_announces_in_words_is_trained_graded_and_told_its_plan(tmp_path: Path) -> None:
    settings = [each for each in SETTINGS if "num_" not in each]
    words = ["stage.words=true", "stage.template=alpaca", "stage.instruction=Guess well.", "model.positions=512", "limit=8"]
    run = train(tmp_path, *settings, *guesses(tmp_path), *words, base=())
    found = evaluate(run)
    assert found["plans"]["tokens"] == 0
    assert set(found["plans"]["loss"]) == {"plan", "step", "answer"}
    assert found["plans"]["with_gold_plan"]["n"] == found["accuracy"]["n"] == 60
    told = rows(run / "samples.jsonl")[0]
    assert len(told["plan_gold"]) == 2
    with pytest.raises(PlanError, match=r"announces steps in words; allowed: runs with tokens \(stage\.words=false\)$"):
        evaluate(run, "task=plans")


def test_tokens_keep_the_names_they_were_given(tmp_path: Path) -> None:
    named = ["limit=8", "stage.num_prefix=1", "stage.names=[+:plus,prefix:plan]", "stage.form='[{kind}.{number}]'"]
    run = train(tmp_path, *SETTINGS, *guesses(tmp_path), *named, "name=named", base=())
    tokens = ["[plan.0]", "[answer.0]", "[assignment.0]", "[plus.0]", "[-.0]", "[*.0]", "[/.0]"]
    added = json.loads((run / "checkpoint" / "tokenizer_config.json").read_text())["extra_special_tokens"]
    assert added[-7:] == tokens
    config = trained_config(run)
    tokenizer = checkpoint.load(run / "checkpoint")[0].tokenizer
    problem = Problem("p", "Guess 1", ("2+1 so", "4*3 so"), "0")
    (encoded,) = config.stage.encode([problem], tokenizer)
    assert [tokenizer.decode(each) for each in encoded.plans] == ["[plan.0][plus.0]", "[plan.0][*.0]", "[plan.0][answer.0]"]
    assert {*rows(run / "samples.jsonl")[0]["plan_gold"]} <= {"+", "-", "*"}  # kinds are told by what they are
    assert evaluate(run)["plans"]["with_gold_plan"]["n"] == 60
    further = ["name=further", f"init_from={run / 'checkpoint'}", "plan.control=shuffled"]
    again = train(tmp_path, *SETTINGS, *guesses(tmp_path), *named, *further, base=())
    assert checkpoint.load(again / "checkpoint")[0].tokenizer.get_vocab() == tokenizer.get_vocab()


def test_an_impossible_step_says_what_is_allowed() -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('step=-1: allowed are 0 (the first step) and more')}$"):
        PlansTask(step=-1)
