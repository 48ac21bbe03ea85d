"""A study through the door: a model that plans well and cannot calculate, one that can, and what tools and tests say of them."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from tiny import result, rows, train

from latent_lab.config import ConfigError
from latent_lab.job import job
from latent_lab.report.study import labels

SHAPE = ["stage=cot", "model.layers=2", "model.width=64", "model.heads=2", "model.positions=64", "device=cpu", "dataset=file"]
LEARN = ["batch_size=16", "stage.epochs=[120]", "optim.lr=4e-3", "optim.schedule=cosine", "eval_every=999", "threads=1"]
PAIRS = [(a, b) for a in range(2, 10) for b in range(2, 10)][::4]


def problem(a: int, b: int, slip: int) -> dict[str, Any]:
    """Two steps; with a slip, the first result is wrong and the second goes on from it, as a bad calculator would."""
    first = a + b + slip
    return {
        "question": f"Tom has {a} and {b}, twice.",
        "steps": [f"<<{a}+{b}={first}>>", f"<<{first}*2={first * 2}>>"],
        "answer": str(first * 2),
    }


def write(path: Path, slip: int) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(json.dumps(problem(a, b, slip)) for a, b in PAIRS))
    return path


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trained runs: ``good`` learned right chains by heart, ``slips`` chains that are one off in their first step."""
    folder = tmp_path_factory.mktemp("study")
    for name, slip in (("good", 0), ("slips", 1)):
        for split in ("train", "valid", "test"):
            write(folder / f"{name}-data" / f"{split}.jsonl", slip)
        train(folder, *SHAPE, *LEARN, f"dataset.path={folder / f'{name}-data'}", f"name={name}", base=())
    write(folder / "gold.jsonl", 0)
    return folder


def ask(outputs: Path, *words: str) -> dict[str, Any]:
    asked = job("eval", [*words, "dataset=file", f"dataset.path={outputs / 'gold.jsonl'}", f"outputs={outputs}", "device=cpu"])
    returned: dict[str, Any] = asked.config.task.run(asked)
    return returned


@pytest.fixture(scope="module")
def study(outputs: Path) -> dict[str, Any]:
    return ask(outputs, "run=good,slips", "tool=[repair,calculator]", "judge=rules", f"out={outputs / 'study'}")


def test_tools_turn_a_slip_of_arithmetic_into_the_right_answer(study: dict[str, Any]) -> None:
    n = len(PAIRS)
    good, slips = study["runs"]["good"], study["runs"]["slips"]
    assert good["accuracy"]["value"] > 0.8
    assert slips["accuracy"]["value"] == 0
    assert slips["tools"]["repair"]["second"]["value"] > 0.8
    both, first, second, neither = slips["tools"]["repair"]["table"]
    assert (both, first, second + neither) == (0, 0, n)
    assert slips["errors"]["execution"]["count"] == second
    assert sum(kind["count"] for kind in slips["errors"].values()) == n
    assert slips["judge"]["kinds"]["execution"]["count"] == second


def test_the_calculator_writes_results_while_the_model_writes_the_rest(study: dict[str, Any]) -> None:
    graded = rows(Path(study["runs"]["slips"]["evaluation"]) / "samples.jsonl")
    for row in graded:
        assert f"<<{row['question'].split()[2]}+" in row["output"]
        first = row["calculator"]["output"].split(">>")[0].removeprefix("<<")
        left, _, right = first.partition("=")
        assert sum(map(int, left.split("+"))) == int(right)
        assert row["output"] != row["calculator"]["output"]


def test_every_difference_is_tested_and_holm_counts_them_all(study: dict[str, Any]) -> None:
    found = {(c["run_first"], c["way_first"], c["run_second"], c["way_second"]): c for c in study["comparisons"]}
    assert set(found) == {
        ("good", "none", "good", "repair"),
        ("good", "none", "good", "calculator"),
        ("slips", "none", "slips", "repair"),
        ("slips", "none", "slips", "calculator"),
        ("good", "none", "slips", "none"),
        ("good", "repair", "slips", "repair"),
        ("good", "calculator", "slips", "calculator"),
    }
    for compared in found.values():
        assert compared["mcnemar_p"] <= compared["holm_p"] <= min(1, 7 * compared["mcnemar_p"])
    apart = found["good", "none", "slips", "none"]
    assert apart["difference"]["high"] < 0
    assert apart["n_to_see"] <= len(PAIRS)


def test_its_files_hold_the_same_numbers(outputs: Path, study: dict[str, Any]) -> None:
    folder = outputs / "study"
    assert result(folder) == study
    names = {"report.html", "study.png", "confusion.png", "tables.csv", "samples.jsonl", "result.json"}
    assert names <= {path.name for path in folder.iterdir()}
    with (folder / "tables.csv").open() as file:
        table = {(row["run"], row["way"], row["group"], row["value"]): row for row in csv.DictReader(file)}
    assert float(table["slips", "repair", "all", ""]["accuracy"]) == study["runs"]["slips"]["tools"]["repair"]["second"]["value"]
    assert float(table["good", "none", "steps", "2"]["accuracy"]) == study["runs"]["good"]["accuracy"]["value"]
    assert all(row["answers"][0]["answer"] for row in rows(folder / "samples.jsonl"))


def test_the_page_escapes_what_models_wrote_and_loads_nothing(outputs: Path, study: dict[str, Any]) -> None:
    page = (outputs / "study" / "report.html").read_text()
    assert "&lt;&lt;" in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert f"{100 * study['runs']['good']['accuracy']['value']:.1f}" in page


def test_the_same_words_take_what_is_stored(outputs: Path, study: dict[str, Any]) -> None:
    before = (outputs / "study" / "result.json").stat().st_mtime_ns
    assert ask(outputs, "run=good,slips", "tool=[repair,calculator]", "judge=rules", f"out={outputs / 'study'}") == study
    assert (outputs / "study" / "result.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("runs", "short"),
    [
        (["addition-cot", "addition-pause"], ["cot", "pause"]),
        (["experiment=stories_cot,seed=1", "experiment=gsm_hard_small,seed=1"], ["stories_cot", "gsm_hard_small"]),
        (["stage=3,seed=1", "stage=3,seed=2"], ["seed=1", "seed=2"]),
        (["stage=3", "stage=3,seed=2"], ["stage=3", "stage=3,seed=2"]),
        (["a/x", "b/x"], ["a/x", "b/x"]),
        (["one"], ["one"]),
    ],
)
def test_a_study_calls_its_runs_by_what_sets_them_apart(runs: list[str], short: list[str]) -> None:
    assert labels(runs) == dict(zip(short, runs, strict=True))


def test_a_single_run_without_tools_is_graded_as_ever(outputs: Path) -> None:
    alone = ask(outputs, "run=good", f"out={outputs / 'alone'}")
    assert alone["run"] == "good"
    assert "tools" not in alone


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run=good,nobody"], "run: given good,nobody; there is no such run"),
        (["run=good,good"], "run: given good,good; one of them is named twice; allowed: each once"),
        (["run=good", "tool=hammer"], "tool: given hammer; allowed: none, repair, calculator"),
        (["run=good", "tool=repair", "task=report"], "tool: given repair; this task lets no tool help; allowed: none"),
        (["run=good,slips", "task=report"], "run: given good,slips; this task grades one run at a time"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(outputs: Path, words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ask(outputs, *words)
    assert str(caught.value).startswith(said)


def test_runs_that_answered_other_problems_are_not_compared(outputs: Path) -> None:
    asked = job("eval", ["run=good,slips", f"outputs={outputs}", "device=cpu"])
    with pytest.raises(ConfigError, match="good and slips were trained on datasets whose problems differ"):
        asked.config.task.run(asked)


def test_a_run_named_to_begin_from_is_trained_first(tmp_path: Path) -> None:
    small = ["model.layers=1", "model.width=32", "model.heads=2", "dataset.train_size=16", "dataset.valid_size=4", "max_steps=1"]
    first = ",".join((*small, "seed=7"))
    second = train(tmp_path, *small, "seed=8", f"init_from={first}", "stage=cot", "device=cpu", "name=second", base=())
    folders = {path.parent.name: path.parent for path in tmp_path.glob("*/result.json")}
    assert len(folders) == 2
    assert "seed=7" in "".join(folders)
    assert result(second)["steps"] == 1


def test_an_evaluation_of_a_run_is_shared_with_tables(outputs: Path) -> None:
    ask(outputs, "run=good,slips", f"out={outputs / 'plain'}")
    before = {path: path.stat().st_mtime_ns for path in outputs.glob("*/eval/*/result.json")}
    ask(outputs, "task=table", "task.runs=[good,slips]", f"out={outputs / 'table'}", "task.shortcuts=false")
    assert {path: path.stat().st_mtime_ns for path in outputs.glob("*/eval/*/result.json")} == before
