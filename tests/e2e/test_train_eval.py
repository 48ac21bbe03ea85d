"""Both doors end to end, in this process: runs that are reused, stages that come first, evaluations that are honest."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tiny import MODEL, TINY, evaluate, result, rows, timeless, train

from latent_lab import checkpoint
from latent_lab.backbone import ModelError
from latent_lab.config import ConfigError
from latent_lab.door import door
from latent_lab.grading.evaluate import Reply, grade
from latent_lab.job import job, jobs
from latent_lab.problems import DataError, Problem
from latent_lab.run import RunConflict

SCORE = {"value", "n", "low", "high"}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outputs")


def write(path: Path, problems: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(problem) + "\n" for problem in problems), encoding="utf-8")


CAPITALS = [
    ("France", "Paris"), ("Spain", "Madrid"), ("Italy", "Rome"), ("Japan", "Tokyo"),
    ("Peru", "Lima"), ("Cuba", "Havana"), ("Norway", "Oslo"),
]  # fmt: skip


@pytest.fixture(scope="module")
def capitals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven questions, the same in every split: what can be learned by heart can be asked for."""
    folder = tmp_path_factory.mktemp("capitals")
    problems = [{"question": f"The capital of {c}?", "steps": [f"{c} means {a}"], "answer": a} for c, a in CAPITALS]
    for split in ("train", "valid", "test"):
        write(folder / f"{split}.jsonl", problems)
    return folder


@pytest.fixture(scope="module")
def learned(outputs: Path, capitals: Path) -> Path:
    """A run that has learned them, with two slots."""
    base = (*MODEL, "device=cpu", "log_every=20", "batch_size=7", "eval_every=40")
    return train(
        outputs, "dataset=file", f"dataset.path={capitals}", "stage=coconut", "stage.stages=[0,2]", "stage.max_stage=2",
        "stage.epochs=[40,120]", "stage.supervision=0.5", "optim.lr=0.01", "name=learned", base=base,
    )  # fmt: skip


# Runs


@pytest.fixture(scope="module")
def first(outputs: Path) -> Path:
    return train(outputs, "stage=0", "stage.epochs=[1]")


def test_a_run_is_named_by_what_it_is_and_holds_what_it_should(first: Path) -> None:
    assert first.name.startswith("stage=0,batch_size=8,dataset.digits=2,dataset.probabilities=1,")
    assert sorted(path.name for path in first.iterdir()) == [
        ".lock", "checkpoint", "config.yaml", "metrics.jsonl", "provenance.json", "result.json", "samples.jsonl",
    ]  # fmt: skip
    assert not list(first.rglob(".tmp-*"))
    assert len(json.loads((first / "provenance.json").read_text())["attempts"]) == 1


def test_the_result_of_training(first: Path) -> None:
    found = result(first)
    assert list(found) == [
        "split", "accuracy", "accuracy_of_scored", "unscored", "digits_right", "no_answer", "not_stopped", "tokens_per_answer",
        "thoughts_per_answer", "by_steps", "by_digits", "by_carries", "floors", "teacher_forced_exact",
        "seed", "stages", "steps", "best_step", "parameters", "train_problems", "seconds",
    ]  # fmt: skip
    assert (found["split"], found["accuracy"]["n"], found["stages"]) == ("valid", 17, [0])
    assert (found["steps"], found["best_step"], found["train_problems"], found["seed"]) == (5, 5, 40, 0)
    weights = load_file(first / "checkpoint" / "model.safetensors")
    assert found["parameters"] == sum(w.numel() for w in weights.values())
    assert [row["step"] for row in rows(first / "metrics.jsonl")] == [1, 2, 3, 4, 5, 5]
    assert len(rows(first / "samples.jsonl")) == 17


def test_the_same_command_again_returns_the_stored_result_and_touches_nothing(outputs: Path, first: Path) -> None:
    before = stamps(first)
    assert train(outputs, "stage=0", "stage.epochs=[1]") == first
    assert stamps(first) == before


def test_accuracy_when_each_stage_begins_is_a_metric_and_changes_nothing_else(tmp_path: Path) -> None:
    asked = ("stage=coconut", "stage.stages=[0,2]", "stage.epochs=[1,1]", "model.dropout=0.2", "stage.mix=0.5")
    plain, scored = train(tmp_path / "a", *asked), train(tmp_path / "b", *asked, "eval_at_start=true")
    metrics = rows(scored / "metrics.jsonl")
    at_start = [row for row in metrics if "valid/accuracy_at_start" in row]
    assert [(row["step"], row["stage"], row["valid/n_at_start"]) for row in at_start] == [(0, 0, 17), (5, 2, 17)]
    assert all(row["valid/low_at_start"] <= row["valid/accuracy_at_start"] <= row["valid/high_at_start"] for row in at_start)
    assert len(metrics) == len(rows(plain / "metrics.jsonl")) + 2
    assert timeless(scored) | {"metrics": None} == timeless(plain) | {"metrics": None}


def test_where_and_how_a_run_works_may_differ(outputs: Path, first: Path) -> None:
    assert train(outputs, "stage=0", "stage.epochs=[1]", "micro_batch_size=3", "save_every=5", "eval_batch_size=4") == first


def test_the_same_config_and_seed_give_the_same_bytes_and_another_seed_others(tmp_path: Path, first: Path) -> None:
    assert timeless(train(tmp_path, "stage=0", "stage.epochs=[1]")) == timeless(first)
    other = train(tmp_path, "stage=0", "stage.epochs=[1]", "seed=1")
    assert timeless(other)["weights"] != timeless(first)["weights"]
    assert timeless(other)["metrics"] != timeless(first)["metrics"]


def test_another_config_in_the_folder_is_refused_with_the_difference(outputs: Path, first: Path) -> None:
    before = stamps(first)
    with pytest.raises(RunConflict) as error:
        train(outputs, "stage=0", "stage.epochs=[1]", "optim.lr=0.5", f"name={first.name}")
    assert str(error.value) == (
        f"{first} holds a run with another config: optim.lr: stored 0.001, given 0.5. "
        "Say overwrite=true to redo it, or name=... for another folder"
    )
    assert stamps(first) == before


def test_overwrite_does_a_run_again(tmp_path: Path) -> None:
    run = train(tmp_path, "stage=no_cot", "stage.epochs=[1]", "name=x")
    (run / "checkpoint" / "latent.json").write_text("{}")
    before = timeless(run) | {"latent": None}
    again = train(tmp_path, "stage=no_cot", "stage.epochs=[1]", "name=x", "overwrite=true")
    assert timeless(again) | {"latent": None} == before
    assert json.loads((again / "checkpoint" / "latent.json").read_text())["num_slots"] == 0
    changed = train(tmp_path, "stage=cot", "stage.epochs=[1]", "name=x", "overwrite=true")
    assert timeless(changed)["metrics"] != before["metrics"]
    assert len(json.loads((changed / "provenance.json").read_text())["attempts"]) == 1


def test_the_state_to_continue_from_goes_only_when_the_result_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while it is graded, a run must not train again."""
    from latent_lab.stages import course

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    asked = ("stage=0", "stage.epochs=[1]", "save_every=0", "name=x")
    with monkeypatch.context() as patch:
        patch.setattr(course, "teacher_forced", killed)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, *asked)
    assert json.loads((tmp_path / "x/state/position.json").read_text())["step"] == 4
    assert not (tmp_path / "x/result.json").exists()
    stamp = (tmp_path / "x/config.yaml").stat().st_mtime_ns
    train(tmp_path, *asked)
    assert (tmp_path / "x/config.yaml").stat().st_mtime_ns == stamp
    assert not (tmp_path / "x/state").exists()
    assert len(json.loads((tmp_path / "x/provenance.json").read_text())["attempts"]) == 2


def stamps(folder: Path) -> dict[Path, int]:
    """When each file was last written, locks aside."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"}


# Stages


SMALL = ("model.layers=1", "dataset.train_size=9", "limit=9", "batch_size=4", "stage.epochs=[0.4]", "device=cpu")


def stages_of(outputs: Path) -> dict[tuple[int, ...], Path]:
    return {tuple(result(folder)["stages"]): folder for folder in outputs.iterdir() if (folder / "result.json").exists()}


def test_a_stage_trains_the_ones_before_it_first_and_reuses_them(tmp_path: Path) -> None:
    run = train(tmp_path, "stage=2", base=SMALL)
    others = ",batch_size=4,dataset.train_size=9,limit=9,model.layers=1,stage.epochs=0.4"
    assert {stage: folder.name for stage, folder in stages_of(tmp_path).items()} == {
        (0,): f"stage=0{others}", (1,): f"stage=1{others}", (2,): f"stage=2{others}",
    }  # fmt: skip
    before = stamps(tmp_path)
    assert train(tmp_path, "stage=2", base=SMALL) == run
    assert stamps(tmp_path) == before
    train(tmp_path, "stage=3", base=SMALL)
    assert len(stages_of(tmp_path)) == 4
    assert stamps(tmp_path).items() >= before.items()


def test_a_stage_begins_with_the_weights_of_the_one_before(tmp_path: Path) -> None:
    earlier = train(tmp_path, "stage=0", "stage.epochs=[0.4]")
    start = load_file(earlier / "checkpoint" / "model.safetensors")
    later = load_file(train(tmp_path, "stage=1", "stage.epochs=[0.4]", "optim.lr=1e-12") / "checkpoint" / "model.safetensors")
    # The second run's own stage 0 has other weights: it learned as slowly.
    assert max((later[name] - start[name]).abs().max().item() for name in start) > 1e-4
    from_there = train(tmp_path, "stage=1", "stage.epochs=[0.4]", "optim.lr=1e-12", f"init_from={earlier}/checkpoint", "name=x")
    weights = load_file(from_there / "checkpoint" / "model.safetensors")
    assert max((weights[name] - start[name]).abs().max().item() for name in start) < 1e-9


def test_init_from_trains_no_stage_before(tmp_path: Path, first: Path) -> None:
    run = train(tmp_path, "stage=2", "stage.epochs=[0.4]", f"init_from={first}/checkpoint")
    assert sorted(stages_of(tmp_path)) == [(2,)]
    assert result(run)["thoughts_per_answer"] == 2.0


def test_stages_given_as_a_list_train_the_one_before_as_a_list(tmp_path: Path) -> None:
    train(tmp_path, "stage=coconut", "stage.stages=[2]", "stage.max_stage=2", base=SMALL)
    others = "batch_size=4,dataset.train_size=9,limit=9,model.layers=1,stage.epochs=0.4,stage.max_stage=2"
    assert {stages: folder.name for stages, folder in stages_of(tmp_path).items()} == {
        (0,): f"stage=coconut,{others},stage.stages=0",
        (1,): f"stage=coconut,{others},stage.stages=1",
        (2,): f"stage=coconut,{others},stage.stages=2",
    }


def test_a_sweep_trains_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = [*SMALL, f"outputs={tmp_path}", "stage=0,1,2", "seed=1,2"]
    trained = []
    for planned in jobs("train", overrides):
        known = stages_and_seeds(tmp_path)
        planned.config.stage.train(planned)
        trained += sorted(stages_and_seeds(tmp_path) - known)
    assert sorted(trained) == [(stage, seed) for stage in (0, 1, 2) for seed in (1, 2)]
    before = stamps(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train", "-m", *overrides])
    door("train", lambda each: each.config.stage.train(each))
    assert stamps(tmp_path) == before
    for folder in tmp_path.iterdir():
        assert len(json.loads((folder / "provenance.json").read_text())["attempts"]) == 1


def stages_and_seeds(outputs: Path) -> set[tuple[int, int]]:
    found = [result(folder) for folder in outputs.iterdir()]
    return {(one["stages"][0], one["seed"]) for one in found}


@pytest.mark.parametrize("decoder", ["linear", "autoregressive"])
def test_a_step_decoder_goes_on_with_its_training_only_where_it_fits(tmp_path: Path, learned: Path, decoder: str) -> None:
    """``learned`` has an autoregressive one for short steps; longer steps, or another kind, begin anew."""
    longer = [{"question": q, "steps": ["a much, much longer step than any before it"], "answer": "x"} for q in "abcdefgh"]
    write(tmp_path / "long.jsonl", longer)
    base = (
        *MODEL,
        "device=cpu",
        "dataset=file",
        f"dataset.path={tmp_path}/long.jsonl",
        "dataset.valid_share=0.3",
        "batch_size=8",
    )
    run = train(
        tmp_path, "stage=1", "stage.epochs=[1]", "stage.supervision=1", f"stage.decoder={decoder}",
        f"init_from={learned}/checkpoint", "name=x", base=base,
    )  # fmt: skip
    _, info, loaded = checkpoint.load(run / "checkpoint")
    assert loaded is not None
    assert (info.decoder, info.longest) == (decoder, loaded.longest)
    assert loaded.longest > checkpoint.load(learned / "checkpoint")[1].longest


def test_a_step_decoder_that_fits_is_kept(tmp_path: Path) -> None:
    asked = ("stage.supervision=1", "stage.epochs=[0.2]")
    run = train(tmp_path, "stage=0", *asked)
    later = train(tmp_path, "stage=1", *asked, f"init_from={run}/checkpoint", "optim.lr=1e-12", "seed=7")
    before, after = (checkpoint.load(folder / "checkpoint")[2] for folder in (run, later))
    assert before is not None
    assert after is not None
    assert all((a - b).abs().max() < 1e-9 for a, b in zip(before.parameters(), after.parameters(), strict=True))


def test_the_best_weights_are_graded_and_kept_not_the_last(tmp_path: Path, capitals: Path) -> None:
    """The learning rate rises without end: what little the run learns it forgets again."""
    base = (*MODEL, "device=cpu", "batch_size=7", "eval_every=20", "dataset=file", f"dataset.path={capitals}")
    run = train(tmp_path, "stage=no_cot", "stage.epochs=[200]", "optim.lr=1", "optim.warmup=1000", "name=x", base=base)
    accuracies = {row["step"]: row["valid/accuracy"] for row in rows(run / "metrics.jsonl") if "valid/accuracy" in row}
    found = result(run)
    assert accuracies[200] < found["accuracy"]["value"] == max(accuracies.values())
    assert found["best_step"] == min(step for step, accuracy in accuracies.items() if accuracy == max(accuracies.values()))
    assert evaluate(run)["accuracy"] == found["accuracy"]  # the test split asks the same


# Evaluation


def test_a_run_that_learned_is_right_by_itself_and_its_majority_floor_is_not(learned: Path) -> None:
    found = result(learned)
    assert found["accuracy"]["value"] == 1.0
    assert (found["floors"]["majority"]["value"], found["no_answer"], found["not_stopped"]) == (1 / 7, 0, 0)
    assert found["thoughts_per_answer"] == 2.0
    accuracies = [row["valid/accuracy"] for row in rows(learned / "metrics.jsonl") if "valid/accuracy" in row]
    assert accuracies[0] < accuracies[-1] == 1.0
    losses = [row["train/loss"] for row in rows(learned / "metrics.jsonl") if "train/loss" in row]
    assert losses[-1] < 0.1 < 1.0 < losses[0]


@pytest.fixture(scope="module")
def graded(learned: Path) -> dict[str, Any]:
    return evaluate(learned, "task=answers")


def test_the_result_of_an_evaluation(learned: Path, graded: dict[str, Any]) -> None:
    assert list(graded) == [
        "task", "run", "split", "accuracy", "accuracy_of_scored", "unscored", "digits_right", "no_answer", "not_stopped",
        "tokens_per_answer", "thoughts_per_answer", "by_steps", "floors", "teacher_forced_exact", "chain_tokens",
        "seen_in_training", "slots", "stage", "training_seed", "seconds",
    ]  # fmt: skip
    assert (graded["task"], graded["run"], graded["split"], graded["slots"], graded["stage"]) == (
        "answers", str(learned), "test", 2, 2,
    )  # fmt: skip
    assert graded["seen_in_training"] == 7
    assert set(graded["floors"]) == {"majority", "thoughts_removed", "thoughts_zeroed", "thoughts_another_problem"}
    for score in (graded["accuracy"], graded["teacher_forced_exact"], *graded["floors"].values()):
        assert set(score) == SCORE
        assert score["n"] == 7
        assert score["low"] <= score["value"] <= score["high"]
    assert graded["accuracy"]["value"] == 1.0
    assert graded["seconds"] > 0


def test_an_evaluation_lies_inside_the_run_and_is_not_done_twice(learned: Path, graded: dict[str, Any]) -> None:
    folder = learned / "eval" / "task=answers"
    assert sorted(path.name for path in folder.iterdir()) == [
        ".lock", "config.yaml", "provenance.json", "result.json", "samples.jsonl",
    ]  # fmt: skip
    assert result(folder) == graded
    before = stamps(folder)
    assert evaluate(learned, "task=answers") == graded
    assert stamps(folder) == before


def test_samples_show_what_the_model_wrote_for_each_problem(learned: Path, graded: dict[str, Any]) -> None:
    samples = rows(learned / "eval" / "task=answers" / "samples.jsonl")
    assert [row["question"] for row in samples] == [f"The capital of {country}?" for country, _ in CAPITALS]
    assert samples[0] == {
        "id": "test-1", "question": "The capital of France?", "gold": "Paris", "output": "### Paris", "answer": "Paris",
        "extractor": "marker", "status": "right", "reason": None, "correct": True, "digits_right": None, "stopped": True,
        "truncated": False, "tokens": samples[0]["tokens"], "thoughts": 2, "steps": 1,
    }  # fmt: skip
    assert graded["tokens_per_answer"] == sum(row["tokens"] for row in samples) / 7


def test_results_go_where_they_are_asked_for(learned: Path, tmp_path: Path) -> None:
    found = evaluate(learned, f"out={tmp_path}/mine", "limit=3", "task.floors=false")
    assert result(tmp_path / "mine") == found
    assert (found["accuracy"]["n"], found["floors"]) == (3, {})
    with pytest.raises(RunConflict, match=r"holds a run with another config:"):
        evaluate(learned, f"out={tmp_path}/mine", "limit=4", "task.floors=false")


def test_changed_weights_or_problems_never_pass_for_the_old_ones(learned: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(learned, tmp_path / "copy")
    path = tmp_path / "test.jsonl"
    write(path, [{"question": "The capital of Peru?", "steps": [], "answer": "Lima"}])
    asked = ("dataset=file", f"dataset.path={path}", f"out={tmp_path}/out", "task.floors=false")
    assert evaluate(copy, *asked)["accuracy"]["value"] == 1.0
    write(path, [{"question": "The capital of Peru?", "steps": [], "answer": "Cusco"}])
    with pytest.raises(RunConflict, match="another config: problems: stored"):
        evaluate(copy, *asked)
    write(path, [{"question": "The capital of Peru?", "steps": [], "answer": "Lima"}])
    weights = copy / "checkpoint" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(RunConflict, match="another config: weights: stored"):
        evaluate(copy, *asked)


def test_steps_of_the_file_change_nothing_unless_the_leak_is_asked_for(learned: Path, tmp_path: Path) -> None:
    questions = [(f"The capital of {country}?", answer) for country, answer in CAPITALS]
    for name, steps in (("none", []), ("one", ["a step"]), ("many", ["Rome", "Lima", "Oslo", "### Paris"])):
        write(tmp_path / f"{name}.jsonl", [{"question": q, "steps": steps, "answer": a} for q, a in questions])

    def outputs_of(name: str, *overrides: str) -> list[dict[str, Any]]:
        out = tmp_path / f"{name}-{len(overrides)}"
        evaluate(learned, "dataset=file", f"dataset.path={tmp_path}/{name}.jsonl", f"out={out}", *overrides)
        return [{key: row[key] for key in row if key not in ("steps", "id")} for row in rows(out / "samples.jsonl")]

    fixed = outputs_of("none")
    assert fixed == outputs_of("one") == outputs_of("many")
    assert {row["thoughts"] for row in fixed} == {2}
    leak = "task.thoughts=gold_chain_leak"
    assert [{row["thoughts"] for row in outputs_of(name, leak)} for name in ("none", "one", "many")] == [{0}, {1}, {2}]
    assert result(tmp_path / "many-1")["slots"] == "gold_chain_leak"


def test_slots_may_be_given(learned: Path) -> None:
    assert evaluate(learned, "task.num_slots=5", "task.floors=false")["thoughts_per_answer"] == 5.0


def test_an_answer_that_is_cut_off_is_not_right(learned: Path) -> None:
    tokens = {row["tokens"] for row in rows(learned / "samples.jsonl")}
    found = evaluate(learned, f"task.max_new_tokens={max(tokens) - 1}", "task.floors=false", "split=valid")
    longest = sum(row["tokens"] == max(tokens) for row in rows(learned / "samples.jsonl"))
    assert (found["not_stopped"], found["accuracy"]["value"]) == (longest, (7 - longest) / 7)


def test_how_answers_are_found_and_compared_can_be_chosen(learned: Path, tmp_path: Path) -> None:
    found = evaluate(learned, "task.extractors=[hashes,node]", "task.floors=false")  # two words are no node
    assert (found["accuracy"]["value"], found["unscored"]["no_answer"], found["accuracy_of_scored"]["n"]) == (0.0, 7, 0)
    found = evaluate(learned, "task.equivalence=numeric", "task.tolerance=1", "task.floors=false")  # no capital is a number
    assert found["unscored"] == {"no_answer": 0, "truncated": 0, "not_comparable": 7, "too_long": 0}
    shortest = min(row["tokens"] for row in rows(learned / "samples.jsonl"))
    cut = (f"task.max_new_tokens={shortest - 1}", "task.floors=false", "split=valid")
    assert evaluate(learned, *cut)["unscored"]["truncated"] == 7
    assert evaluate(learned, *cut, "task.accept_truncated=true")["unscored"]["truncated"] == 0


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("task.equivalence=near", r"task\.equivalence: given near; allowed: exact, integer, numeric, math, published_in_run, "),
        ("task.extractors=[last]", r"task\.extractors: given last; allowed: marker, hashes, boxed, the_answer_is, last_number, "),
        ("task.tolerance=1", r"task\.tolerance: given 1\.0; the rule exact has no tolerance to set; allowed: 0, or numeric$"),
        ("task.tolerance_scale=0.1", r"task\.tolerance_scale: given 0\.1; allowed: numbers above 0, beside an absolute "),
        ("task.percent=true", r"task\.percent: given True; allowed: false, or the rules integer and numeric$"),
    ],
)
def test_a_way_of_grading_that_cannot_be_is_answered_by_its_key(learned: Path, override: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=f"^{complaint}"):
        evaluate(learned, override)


def test_the_published_file_of_sums_can_be_graded(first: Path, data_folder: Path) -> None:
    path = data_folder / "arithmetic" / "valid.jsonl"
    found = evaluate(first, "dataset=file", f"dataset.path={path}", "limit=37", "batch_size=16")
    problems = rows(path)[:37]
    assert found["accuracy"]["n"] == 37
    assert sum(score["n"] for score in found["by_steps"].values()) == 37
    (folder,) = (first / "eval").iterdir()
    assert [(row["question"], row["gold"]) for row in rows(folder / "samples.jsonl")] == [
        (p["question"], p["answer"]) for p in problems
    ]
    assert (found["accuracy"]["value"], found["slots"], list(found["floors"])) == (0.0, 0, ["majority"])


def test_breakdowns_of_sums_cover_every_problem_once(outputs: Path) -> None:
    base = (*TINY, "dataset.digits=[1,3]", "dataset.probabilities=[0.5,0.5]", "stage.epochs=[0.2]")
    run = train(outputs, "stage=coconut", "stage.stages=[0,1]", "name=mixed", base=base)
    found = evaluate(run)
    for key in ("by_steps", "by_digits", "by_carries"):
        assert sum(score["n"] for score in found[key].values()) == found["accuracy"]["n"] == 11
    assert set(found["by_digits"]) == {"1", "3"}
    assert found["seen_in_training"] == 0


def test_a_model_that_writes_before_it_thinks_is_trained_and_graded(tmp_path: Path) -> None:
    problems = [{"question": f"The capital of {c}?", "steps": [f"in {c}", f"{a} it is"], "answer": a} for c, a in CAPITALS]
    for split in ("train", "valid", "test"):
        write(tmp_path / f"{split}.jsonl", problems)
    base = (*MODEL, "device=cpu", "log_every=50", "batch_size=7", "eval_every=60")
    run = train(
        tmp_path, "dataset=file", f"dataset.path={tmp_path}", "stage=coconut", "stage.stages=[0,1]", "stage.latents_from=end",
        "stage.epochs=[60,120]", "optim.lr=0.01", "name=x", base=base,
    )  # fmt: skip
    found = evaluate(run)
    assert found["accuracy"]["value"] == 1.0
    samples = rows(run / "eval" / "default" / "samples.jsonl")
    assert [row["output"] for row in samples] == [f"in {country}\n### {answer}" for country, answer in CAPITALS]
    assert {row["thoughts"] for row in samples} == {1}


def test_what_cannot_be_graded_says_why(outputs: Path, learned: Path, tmp_path: Path) -> None:
    unfinished = shutil.copytree(learned, tmp_path / "unfinished")
    (unfinished / "result.json").unlink()
    with pytest.raises(ModelError) as error:
        evaluate(unfinished)
    assert str(error.value) == (
        f"run: {unfinished} is no finished training run (no result.json or no checkpoint/ in it): train it to its end first"
    )
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty" / "train.jsonl", [{"question": "q", "answer": "a"}])
    with pytest.raises(DataError):
        evaluate(learned, "dataset=file", f"dataset.path={tmp_path}/empty")


def test_a_run_of_another_name_can_be_graded_by_it(
    learned: Path, outputs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    os.symlink(outputs, tmp_path / "outputs")
    monkeypatch.chdir(tmp_path)
    asked = job("eval", ["run=learned", "limit=2", "task.floors=false", "out=here", "device=cpu"])
    assert asked.config.task.run(asked)["accuracy"]["value"] == 1.0
    assert (tmp_path / "here" / "result.json").exists()


def test_grading_is_that_of_the_graders(learned: Path) -> None:
    """The doors grade as :func:`grade` does: text in, verdict out."""
    for row in rows(learned / "samples.jsonl"):
        problem = Problem(row["id"], row["question"], ("x",), row["gold"])
        assert grade(problem, Reply(row["id"], row["output"], row["tokens"], row["thoughts"], row["stopped"])) == row
