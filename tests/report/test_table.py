import json
import logging
from copy import deepcopy
from dataclasses import replace
from functools import cache, reduce
from operator import getitem
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any

import pytest
import yaml

from latent_lab.config import ConfigError
from latent_lab.grading.statistics import wilson
from latent_lab.job import Job, job
from latent_lab.overrides import slug
from latent_lab.problems import DataError
from latent_lab.report.table_rows import cells_of, floors_of, in_words, markdown, row, rule_row
from latent_lab.report.table_runs import Group, groups, without_prefix, without_seed
from latent_lab.run import RunConflict
from tests.tiny import evaluate, result, rows, train

SHORT = ("stage.epochs=[0.2]", "dataset.test_size=7")
TRAINED = {"seconds": 100.0, "steps": 600, "parameters": 1000}


def answered(right: int, n: int = 100, tokens: float = 5.0, thoughts: float = 3.0, **floors: int) -> dict[str, Any]:
    """What an evaluation found: so many of ``n`` right, and so many under each floor."""
    scores = {name: wilson(count, n).as_dict() for name, count in floors.items()}
    rest = {"tokens_per_answer": tokens, "thoughts_per_answer": thoughts}
    return {"accuracy": wilson(right, n).as_dict(), "floors": scores, **rest}


@cache
def composed(door: str, *overrides: str) -> Job:
    return job(door, list(overrides))


def make(outputs: Path, name: str, stage: str, *overrides: str, finished: bool = True) -> Path:
    """The folder of a training run that nobody trained: enough where nothing is graded. Composed once a stage: it takes time."""
    said = [stage, *overrides, *([f"name={name}"] if name else []), f"outputs={outputs}"]
    plain = deepcopy(composed("train", stage).plain)
    for key, _, value in (text.partition("=") for text in said[1:]):
        *groups, leaf = key.split(".")
        reduce(getitem, groups, plain)[leaf] = yaml.safe_load(value)
    folder = outputs / (name or slug(said))
    (folder / "checkpoint").mkdir(parents=True)
    (folder / "checkpoint" / "model.safetensors").write_text(name)
    (folder / "config.yaml").write_text(json.dumps(plain))
    (folder / "provenance.json").write_text(json.dumps({"attempts": [{"command": ["python", "-m", "latent_lab.train", *said]}]}))
    if finished:
        (folder / "result.json").write_text("{}")
    return folder


def table(outputs: Path, *overrides: str) -> dict[str, Any]:
    """Make a table as the door does and return the result."""
    asked = job("eval", ["task=table", "device=cpu", f"outputs={outputs}", *overrides])
    returned: dict[str, Any] = asked.config.task.run(asked)
    return returned


def found(outputs: Path, *patterns: str) -> list[Group]:
    asked = composed("eval", "task=table")
    return groups(patterns, replace(asked, config=replace(asked.config, outputs=str(outputs))))


def labels(outputs: Path, *patterns: str) -> list[str]:
    return [group.label for group in found(outputs, *patterns)]


def refused(outputs: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        table(outputs, *overrides)
    return str(error.value)


# Rows


def test_a_row_is_the_mean_over_seeds() -> None:
    graded = [
        answered(50, tokens=5, thoughts=3, majority=2, thoughts_removed=10),
        answered(60, tokens=6, thoughts=3, majority=2, thoughts_removed=20),
        answered(70, tokens=7, thoughts=3, majority=2, thoughts_removed=60),
    ]
    trained = [{**TRAINED, "seconds": seconds} for seconds in (10, 20, 60)]
    made = row("mine", ["a", "b", "c"], [1, 2, 3], graded, trained)
    assert made == {
        "label": "mine",
        "kind": "model",
        "runs": ["a", "b", "c"],
        "seeds": [1, 2, 3],
        "n": 100,
        "accuracy": {
            "mean": pytest.approx(0.6),
            "low": pytest.approx(0.6 - 0.248414, abs=1e-6),
            "high": pytest.approx(0.6 + 0.248414, abs=1e-6),
            "interval": "over seeds",
            "per_seed": [0.5, 0.6, 0.7],
            "pooled": wilson(180, 300).as_dict(),
        },
        "floors": {"majority": pytest.approx(0.02), "thoughts_removed": pytest.approx(0.3)},
        "thoughts_removed": pytest.approx(0.3),
        "with_gold_plan": None,
        "tokens": pytest.approx(6),
        "thoughts": pytest.approx(3),
        "seconds": pytest.approx(30),
        "steps": 600,
        "parameters": 1000,
    }


def test_one_seed_has_the_interval_of_its_problems() -> None:
    accuracy = row("mine", ["a"], [1], [answered(90, majority=2)], [TRAINED])["accuracy"]
    expected = wilson(90, 100)
    assert (accuracy["low"], accuracy["high"], accuracy["interval"]) == (expected.low, expected.high, "over problems")


def test_seeds_that_all_score_the_same_have_the_interval_of_their_problems() -> None:
    accuracy = row("mine", ["a", "b"], [1, 2], [answered(100), answered(100)], [TRAINED, TRAINED])["accuracy"]
    assert (accuracy["mean"], accuracy["low"], accuracy["interval"]) == (1.0, wilson(200, 200).low, "over problems")


def test_a_model_without_slots_has_no_score_without_thoughts() -> None:
    made = row("cot", ["a"], [1], [answered(90, majority=2)], [TRAINED])
    assert (made["thoughts_removed"], made["floors"]) == (None, {"majority": 0.02})


ROWS = [
    row("a|b", ["x", "y"], [1, 2], [answered(50, majority=2, thoughts_removed=10), answered(70, majority=2, thoughts_removed=30)],
        [{**TRAINED, "seconds": 1234.0}] * 2),
    row("cot", ["z"], [1], [answered(90, tokens=31.25, thoughts=0, majority=2)], [TRAINED]),
    rule_row("deepest_leaf", wilson(93, 100).as_dict()),
]  # fmt: skip


def test_the_table_in_markdown() -> None:
    shown = markdown({"dataset": "prosqa", "split": "test", "n": 100, "rows": ROWS}, "python -m it")
    head = "| method | seeds | accuracy, % [95% interval] | all seeds pooled | min-max | thoughts removed, % | majority, % | "
    assert shown.splitlines()[:5] == [
        head + "tokens | thoughts | seconds |",
        "|---|" + "---:|" * 9,
        "| `a\\|b` | 2 | 60.0 [0.0, 100.0] over seeds | [53.1, 66.5] | 50.0-70.0 | 20.0 | 2.0 | 5.0 | 3.0 | 1,234 |",
        "| `cot` | 1 | 90.0 [82.6, 94.5] over problems | - | - | - | 2.0 | 31.2 | 0.0 | 100 |",
        "| rule: deepest leaf | - | 93.0 [86.3, 96.6] over problems | - | - | - | - | - | - | - |",
    ]
    assert "\n100 test problems of prosqa. Accuracy: free-running answers, mean over seeds. 95% intervals: *over seeds*" in shown
    assert shown.endswith("\n\n    python -m it\n")


def test_a_table_says_only_of_intervals_it_has_what_they_are() -> None:
    shown = markdown({"dataset": "prosqa", "split": "test", "n": 100, "rows": ROWS[1:2]}, "")
    assert ("*over problems*, Wilson's, where seeds show no spread. Floors" in shown, "over seeds*" in shown) == (True, False)


def test_a_floor_without_a_heading_of_its_own_comes_last() -> None:
    made = row("mine", ["a"], [1], [answered(90, pause_removed=4, thoughts_zeroed=3, thoughts_removed=2)], [TRAINED])
    assert floors_of([made]) == ["thoughts_removed", "thoughts_zeroed", "pause_removed"]
    assert cells_of(made, floors_of([made]))[5:8] == ["2.0", "3.0", "4.0"]


def test_a_row_in_one_line() -> None:
    assert in_words(ROWS[0]) == (
        "a|b: 60.0% [0.0, 100.0] over seeds, 2 x 100 answers; floors: majority 2.0%, thoughts removed 20.0%"
    )
    assert in_words(ROWS[2]) == "rule deepest leaf: 93.0% [86.3, 96.6] over problems"


# Which runs, and what they are called


def test_runs_that_differ_in_their_seed_alone_are_a_group_in_the_order_given(tmp_path: Path) -> None:
    for seed in (2, 10, 1):
        make(tmp_path, f"sum-cot-seed{seed}", "stage=cot", f"seed={seed}", f"device={'auto' if seed == 1 else 'cpu'}")
        make(tmp_path, f"sum-no_cot-seed{seed}", "stage=no_cot", f"seed={seed}")
    made = found(tmp_path, "sum-no_cot-*", "sum-*")
    assert [(group.label, [run.seed for run in group.runs]) for group in made] == [("no_cot", [1, 2, 10]), ("cot", [1, 2, 10])]
    assert [run.folder for run in made[1].runs] == [tmp_path / f"sum-cot-seed{seed}" for seed in (1, 2, 10)]


def test_names_without_what_they_share_are_labels(tmp_path: Path) -> None:
    for name in ("add-coconut-seed1", "add-coconut-end-seed1", "add-no_cot-seed1"):
        make(tmp_path, name, f"stage={'no_cot' if 'no' in name else 'coconut'}", f"batch_size={len(name)}", "seed=1")
    assert labels(tmp_path, "add-*") == ["coconut-end", "coconut", "no_cot"]
    assert labels(tmp_path, "add-no_cot-seed1") == ["add-no_cot"]


@pytest.mark.parametrize(
    ("names", "left"),
    [
        (["a-b", "a-c"], ["b", "c"]),
        (["a-x-b", "a-x-c"], ["b", "c"]),
        (["cot", "coconut"], ["cot", "coconut"]),
        (["a-no_cot", "a-no_thoughts"], ["no_cot", "no_thoughts"]),
        (["a-b", "a-b-c"], ["b", "b-c"]),
        (["sub/a", "sub/b"], ["a", "b"]),
        (["a-b"], ["a-b"]),
    ],
)
def test_only_whole_words_are_dropped(names: list[str], left: list[str]) -> None:
    assert without_prefix(names) == left


@pytest.mark.parametrize(
    ("name", "left"),
    [("a-seed1", "a"), ("a-seed12", "a-seed12"), ("stage=3,seed=1", "stage=3"), ("a_seed-1", "a"), ("a-seed2", "a-seed2")],
)
def test_a_seed_leaves_a_name_only_where_it_is_that_seed(name: str, left: str) -> None:
    assert without_seed(name, 1) == left


def test_runs_without_names_are_called_by_the_settings_that_differ(tmp_path: Path) -> None:
    for seed in (1, 2):
        make(tmp_path, "", "stage=cot", "limit=9", f"seed={seed}")
        make(tmp_path, "", "stage=3", "limit=9", f"seed={seed}")
        make(tmp_path, "", "stage=3", "limit=9", "stage.supervision=1", f"seed={seed}")
    assert labels(tmp_path, "stage=3*") == ["stage.supervision=0", "stage.supervision=1"]
    assert labels(tmp_path, "stage=cot*", "stage=3,limit=9,seed=?") == ["stage=cot", "stage=3"]
    assert labels(tmp_path, "stage=cot*") == ["stage=cot,limit=9"]


def test_where_settings_do_not_tell_groups_apart_folders_do(tmp_path: Path) -> None:
    make(tmp_path, "", "stage=cot", "limit=9")
    older = make(tmp_path, "", "stage=cot", "limit=8")
    provenance = (tmp_path / "stage=cot,limit=9" / "provenance.json").read_text()
    (older / "provenance.json").write_text(provenance)  # the same words once meant something else
    assert labels(tmp_path, "*") == ["stage=cot,limit=8", "stage=cot,limit=9"]


def test_runs_begun_from_checkpoints_of_their_own_seed_are_one_group(tmp_path: Path) -> None:
    for seed in (1, 2):
        start = make(tmp_path, f"cot-seed{seed}", "stage=cot", f"seed={seed}") / "checkpoint"
        make(tmp_path, f"then-seed{seed}", "stage=3", f"seed={seed}", f"init_from={start}")
    assert [(group.label, len(group.runs)) for group in found(tmp_path, "then-*")] == [("then", 2)]


def test_runs_begun_from_one_checkpoint_are_one_group_whatever_its_seed(tmp_path: Path) -> None:
    start = make(tmp_path, "cot-seed1", "stage=cot", "seed=1") / "checkpoint"
    for seed in (1, 2, 3):
        make(tmp_path, f"then-seed{seed}", "stage=3", f"seed={seed}", f"init_from={start}")
    assert [(group.label, len(group.runs)) for group in found(tmp_path, "then-*")] == [("then", 3)]


def test_a_pattern_skips_what_is_no_training_run(tmp_path: Path) -> None:
    make(tmp_path, "a", "stage=cot")
    (tmp_path / "a-graded").mkdir()
    (tmp_path / "a-graded" / "config.yaml").write_text(json.dumps(job("eval", [f"run={tmp_path / 'a'}"]).plain))
    (tmp_path / "a-notes").mkdir()
    assert [run.folder.name for group in found(tmp_path, "a*") for run in group.runs] == ["a"]


def test_a_run_named_twice_counts_once(tmp_path: Path) -> None:
    folder = make(tmp_path, "a", "stage=cot")
    assert [len(group.runs) for group in found(tmp_path, "a", "a*", str(folder))] == [1]


# What cannot be


def test_no_run_of_that_name(tmp_path: Path) -> None:
    assert refused(tmp_path, "task.runs=cot-*") == (
        "task.runs: given cot-*; no training run is called so; allowed: names below outputs "
        f"(none in {tmp_path} yet), or patterns such as first-*"
    )
    make(tmp_path, "mine", "stage=cot")
    assert "allowed: names below outputs (mine), or" in refused(tmp_path, "task.runs=[mine,yours]")
    assert refused(tmp_path).startswith("task.runs: given nothing; no training run is called so; ")


def test_an_unfinished_run_is_named_with_its_command(tmp_path: Path) -> None:
    make(tmp_path, "a-seed1", "stage=cot", "seed=1")
    make(tmp_path, "a-seed2", "stage=cot", "seed=2", finished=False)
    assert refused(tmp_path, "task.runs=a-*") == (
        "task.runs: given a-seed2; not finished; allowed: finished runs, so repeat what trains them (python -m latent_lab.train "
        f"stage=cot seed=2 name=a-seed2 outputs={tmp_path}), or leave them out"
    )


def test_the_same_seed_twice_is_not_two_seeds(tmp_path: Path) -> None:
    make(tmp_path, "a", "stage=cot", "seed=1")
    make(tmp_path, "b", "stage=cot", "seed=1")
    assert refused(tmp_path, "task.runs=[a,b]") == (
        "task.runs: given a, b; they are the same run twice (seed 1, all settings equal); allowed: one of them"
    )


def test_runs_of_different_problems_are_not_compared(tmp_path: Path) -> None:
    make(tmp_path, "a", "stage=cot", "dataset.train_size=50", "dataset.test_size=9")
    make(tmp_path, "b", "stage=cot", "dataset.train_size=60", "dataset.test_size=9", "dataset.seed=1")
    assert refused(tmp_path, "task.runs=[a,b]") == (
        "dataset: given nothing; a (Arithmetic) and b (Arithmetic) were trained on datasets whose test splits differ; allowed: "
        "runs of one dataset, or the problems to grade all of them on, as in dataset=gsm8k"
    )
    assert not (tmp_path / "tables").exists()


def test_a_split_without_problems(tmp_path: Path) -> None:
    make(tmp_path, "a", "stage=cot", "dataset.test_size=0")
    with pytest.raises(DataError, match=r"^split=test: the dataset has no problem there; choose another split or dataset$"):
        table(tmp_path, "task.runs=a")


def test_runs_are_named_in_one_place(tmp_path: Path) -> None:
    make(tmp_path, "a", "stage=cot")
    assert refused(tmp_path, "run=a", "task.runs=a") == "run: given a; task.runs names the runs (a); allowed: one of the two"


@pytest.mark.parametrize("given", ["[a,[b]]", "[a,null]", "[a,'']", "''"])
def test_names_are_texts(given: str) -> None:
    allowed = r"allowed: names of runs and patterns, as in \[first,other-\*\]"
    with pytest.raises(ConfigError, match=rf"^task\.runs: given .*; {allowed}$"):
        job("eval", ["task=table", f"task.runs={given}"])


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a", "stage=cot")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert refused(tmp_path, "task.runs=a") == (
        "task: given table; it works in one process; allowed: without torchrun (evaluations it made are used)"
    )


# The real thing


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of one method and one of another, trained for a step."""
    made = tmp_path_factory.mktemp("outputs")
    for name, *overrides in (
        ("tiny-direct-seed1", "stage=no_cot", "seed=1"),
        ("tiny-direct-seed2", "stage=no_cot", "seed=2"),
        ("tiny-latent-seed1", "stage=coconut", "stage.stages=[1]", "stage.curriculum=false", "seed=1"),
    ):
        train(made, *overrides, *SHORT, f"name={name}")
    return made


def changed(outputs: Path) -> dict[str, int]:
    """When each evaluation of each run was written."""
    return {str(path.relative_to(outputs)): path.stat().st_mtime_ns for path in sorted(outputs.glob("*/eval/*/result.json"))}


def test_each_run_is_graded_as_task_answers_does(outputs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = evaluate(outputs / "tiny-direct-seed1", "task=answers", f"outputs={outputs}")
    before = changed(outputs)
    with caplog.at_level(logging.INFO):
        made = table(outputs, "task.runs=tiny-*", f"out={tmp_path}")
    assert made == result(tmp_path)
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")} == {
        "config.yaml",
        "provenance.json",
        "table.md",
        "table.png",
        "result.json",
    }
    assert (made["task"], made["dataset"], made["split"], made["n"]) == ("table", "Arithmetic", "test", 7)
    direct, latent, *rules = made["rows"]
    assert (direct["label"], direct["seeds"], latent["label"], latent["seeds"]) == ("direct", [1, 2], "latent", [1])
    assert direct["runs"] == ["tiny-direct-seed1", "tiny-direct-seed2"]
    # The first was graded before, under another name; the others are now.
    assert changed(outputs).items() >= before.items()
    assert list(changed(outputs)) == [
        "tiny-direct-seed1/eval/task=answers/result.json",
        "tiny-direct-seed2/eval/default/result.json",
        "tiny-latent-seed1/eval/default/result.json",
    ]
    second, third = (result(outputs / name / "eval" / "default") for name in ("tiny-direct-seed2", "tiny-latent-seed1"))
    assert direct["accuracy"]["per_seed"] == [first["accuracy"]["value"], second["accuracy"]["value"]]
    assert direct["tokens"] == (first["tokens_per_answer"] + second["tokens_per_answer"]) / 2
    assert (latent["thoughts"], set(latent["floors"])) == (1, set(third["floors"]))
    assert latent["seconds"] == result(outputs / "tiny-latent-seed1")["seconds"]
    assert [rule["kind"] for rule in rules] == ["rule"] * len(rules)
    assert {"majority", "nearest question", "first number"} < {rule["label"] for rule in rules}
    scores = [rule["accuracy"]["mean"] for rule in rules]
    assert scores == sorted(scores, reverse=True)
    assert (tmp_path / "table.png").read_bytes().startswith(b"\x89PNG")
    assert "python -m latent_lab.eval task=table device=cpu " in (tmp_path / "table.md").read_text()
    assert " 'task.runs=tiny-*' " in (tmp_path / "table.md").read_text()
    assert caplog.messages[-1] == f"{tmp_path}: table.md, table.png, result.json"


def test_a_killed_table_grades_nothing_twice_and_a_complete_one_is_used(outputs: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked = ("task.runs=[tiny-direct-seed2,tiny-latent-seed1]", "limit=3", "task.shortcuts=false")
    made = table(outputs, *asked)
    folder = outputs / "tables" / "task=table,limit=3,task.runs=tiny-direct-seed2+tiny-latent-seed1,task.shortcuts=false"
    assert (len(made["rows"]), made["n"], made) == (2, 3, result(folder))
    before = changed(outputs)
    assert "tiny-direct-seed2/eval/limit=3/result.json" in before
    kept = {name: (folder / name).read_bytes() for name in ("table.md", "table.png")}
    for name in ("result.json", "table.md", "table.png"):
        (folder / name).unlink()
    assert {**table(outputs, *asked), "seconds": 0} == {**made, "seconds": 0}
    assert {name: (folder / name).read_bytes() for name in kept} == kept
    with caplog.at_level(logging.INFO):
        again = table(outputs, *asked)
    assert again == result(folder)
    assert f"{folder} is complete; its stored result is used (overwrite=true does it again)" in caplog.messages
    assert changed(outputs) == before


def test_the_table_of_a_single_run_lies_in_its_folder(outputs: Path) -> None:
    made = table(outputs, "run=tiny-direct-seed1", "limit=1", "task.shortcuts=false")
    assert made == result(outputs / "tiny-direct-seed1" / "eval" / "task=table,limit=1,task.shortcuts=false")
    assert [(each["label"], each["runs"]) for each in made["rows"]] == [("tiny-direct", ["tiny-direct-seed1"])]


def test_a_dataset_of_ones_choice(outputs: Path, tmp_path: Path) -> None:
    (tmp_path / "sums.jsonl").write_text('{"question": "11 + 22 =", "steps": ["1+2=3"], "answer": "33"}\n')
    other = outputs / "other-seed1"  # as if it had been trained on other sums
    copytree(outputs / "tiny-latent-seed1", other, ignore=ignore_patterns("eval"))
    trained = yaml.safe_load((other / "config.yaml").read_text())
    (other / "config.yaml").write_text(json.dumps({**trained, "dataset": {**trained["dataset"], "seed": 5}, "name": other.name}))
    words = ("task.runs=[tiny-latent-seed1,other-seed1]", f"out={tmp_path / 'it'}")
    assert refused(outputs, *words).startswith(
        "dataset: given nothing; tiny-latent-seed1 (Arithmetic) and other-seed1 (Arithmetic) "
    )
    made = table(outputs, *words, "dataset=file", f"dataset.path={tmp_path / 'sums.jsonl'}")
    assert (made["dataset"], made["n"]) == ("file", 1)
    assert [each["label"] for each in made["rows"] if each["kind"] == "model"] == ["tiny-latent", "other"]


def test_overwriting_grades_again_only_what_has_changed(outputs: Path, tmp_path: Path) -> None:
    words = ("task.runs=[tiny-direct-seed2,tiny-latent-seed1]", "limit=3", "task.shortcuts=false", f"out={tmp_path}")
    table(outputs, *words)
    before = changed(outputs)
    weights = [outputs / name / "checkpoint" / "model.safetensors" for name in ("tiny-direct-seed1", "tiny-direct-seed2")]
    weights[1].write_bytes(weights[0].read_bytes())
    with pytest.raises(RunConflict, match=r"weights\.tiny-direct-seed2: stored"):
        table(outputs, *words)
    table(outputs, *words, "overwrite=true")
    now = changed(outputs)
    assert [name for name in now if now[name] != before[name]] == ["tiny-direct-seed2/eval/limit=3/result.json"]


def test_rows_are_held_against_one_of_them_also_with_the_gold_plan_given(tmp_path: Path) -> None:
    for plan in ("none", "arithmetic", "general"):
        settings = ("stage=planning", f"plan={plan}", "stage.num_prefix=1", "stage.num_special=1")
        train(tmp_path, *settings, *SHORT, f"name=tiny-{plan}-seed1", "seed=1")
    made = table(tmp_path, "task.runs=tiny-*", "task.against=none", "task.shortcuts=false", f"out={tmp_path / 'table'}")
    told = {each["label"]: each["with_gold_plan"] for each in made["rows"]}
    graded = {plan: result(tmp_path / f"tiny-{plan}-seed1" / "eval" / "default") for plan in ("none", "arithmetic", "general")}
    assert told == {"none": None} | {plan: graded[plan]["plans"]["with_gold_plan"]["value"] for plan in ("arithmetic", "general")}
    # Blocks that are all alike say nothing, so their gold plan is none that could be told.
    assert [(each["label"], each["against"]) for each in made["pairs"]] == [
        ("arithmetic", "none"),
        ("general", "none"),
        ("arithmetic, gold plan given", "none"),
    ]
    samples = rows(tmp_path / "tiny-arithmetic-seed1" / "eval" / "default" / "samples.jsonl")
    right = sum(row["correct_with_gold_plan"] is True for row in samples)
    assert right == round(told["arithmetic"] * len(samples))
    written = (tmp_path / "table" / "table.md").read_text()
    assert "| gold plan given, % |" in written.splitlines()[0]
    assert "\n| `arithmetic, gold plan given` - `none` | " in written
    assert "Gold plan given: its tokens are written for the same models, an oracle." in written


def test_only_a_row_can_be_held_against(outputs: Path) -> None:
    assert refused(outputs, "task.runs=tiny-*", "task.against=latend") == (
        "task.against: given latend; no row is called so; allowed: direct; latent"
    )
