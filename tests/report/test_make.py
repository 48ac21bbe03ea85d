"""task=report on a real, tiny run: what lies in result.json, and that the page shows those numbers."""

import json
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from tiny import MODEL, evaluate, rows, train

from latent_lab.job import job
from latent_lab.report.make import spans

RECIPE = ("stage=coconut", "stage.stages=[0,1,2]", "stage.epochs=[1]", "stage.max_stage=2", "optim.name=muon")
SIZE = ("train_limit=48", "valid_limit=12", "batch_size=16", "log_every=1", "device=cpu")


def report(run: Path, *more: str) -> tuple[dict[str, Any], Path]:
    out = run.parent / f"{run.name}-report"
    return evaluate(run, "task=report", "task.longer_size=7", "limit=11", f"out={out}", *more), out


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    supervised = ("name=supervised", "stage.supervision=0.5", "stage.decoder=linear")
    return report(train(tmp_path_factory.mktemp("outputs"), *RECIPE, *SIZE, *supervised, base=MODEL))


def test_the_result_holds_the_accuracy_beside_its_floors_on_trained_and_on_longer_problems(reported: Any) -> None:
    result, out = reported
    assert json.loads((out / "result.json").read_text()) == result
    assert result["accuracy"]["n"] == 11
    assert result["beyond"]["digits"] == 5
    assert result["beyond"]["accuracy"]["n"] == 7
    for scores in (result, result["beyond"]):
        assert set(scores["floors"]) == {"majority", "thoughts_removed", "thoughts_zeroed", "thoughts_another_problem"}
        assert all(set(floor) == {"value", "n", "low", "high"} for floor in scores["floors"].values())
    assert result["thoughts_per_answer"] == 2
    assert result["seen_in_training"] == 0


def test_reading_is_scored_over_the_slots_that_stand_for_a_step_beside_two_floors(reported: Any) -> None:
    result, _ = reported
    reading = result["reading"]
    assert set(reading["floors"]) == {"thoughts_of_another_problem", "most_frequent_step"}
    assert set(reading["by_slot"]) == {"1", "2"}  # every chain has two steps at least, and there are two slots
    assert reading["by_slot"]["1"]["n"] == reading["by_slot"]["2"]["n"] == 11
    assert reading["exact"]["n"] == reading["floors"]["most_frequent_step"]["n"] == 22


def test_there_is_one_graded_row_a_problem(reported: Any) -> None:
    result, out = reported
    graded = rows(out / "samples.jsonl")
    assert len({row["id"] for row in graded}) == len(graded) == 11
    assert sum(row["correct"] is True for row in graded) == round(result["accuracy"]["value"] * 11)


def test_the_page_shows_ten_of_the_graded_problems_with_what_is_read_in_each_thought(reported: Any) -> None:
    _, out = reported
    page = unescape((out / "report.html").read_text(encoding="utf-8"))
    assert (
        sum(row["question"] in page for row in rows(out / "samples.jsonl")) >= 9
    )  # a bare "12 + 34 =" is drawn token by token in the diagram
    for words in ("thoughts removed", "thoughts replaced by zeros", "thoughts of another problem", "majority answer"):
        assert words in page
    assert "5 digits (never trained)" in page


def test_a_run_without_step_supervision_has_a_page_without_readings(tmp_path: Path) -> None:
    result, out = report(train(tmp_path, *RECIPE, *SIZE, "name=plain", base=MODEL), "task.longer=0")
    assert result["reading"] is None
    assert result["beyond"] is None
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "What the vectors hold" not in page
    assert "never trained" not in page


def test_the_same_report_again_returns_the_stored_result(reported: Any) -> None:
    result, out = reported
    before = (out / "report.html").stat().st_mtime_ns
    again, _ = report(out.parent / "supervised")
    assert again == result
    assert (out / "report.html").stat().st_mtime_ns == before


def test_stage_spans_run_from_the_step_after_the_stage_before_to_the_last_of_their_own() -> None:
    metrics = [{"stage": 0, "step": 10}, {"stage": 0, "step": 16}, {"stage": 1, "step": 20}, {"stage": 5, "step": 90}]
    assert spans(metrics) == [
        {"stage": 0, "first_step": 1, "last_step": 16},
        {"stage": 1, "first_step": 17, "last_step": 20},
        {"stage": 5, "first_step": 21, "last_step": 90},
    ]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.problems=0", "task.problems: given 0; allowed: 1 and more"),
        ("task.longer=-1", "task.longer: given -1; allowed: 0 and more"),
        ("task.longer_size=0", "task.longer_size: given 0; allowed: 1 and more"),
    ],
)
def test_numbers_out_of_range_are_refused(override: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        job("eval", [f"run={tmp_path}", "task=report", override])


def test_the_folder_of_a_report_stands_for_the_run_it_graded(
    reported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out = reported
    monkeypatch.chdir(tmp_path)
    assert job("eval", [f"run={out}"]).config.run_folder == out.parent / "supervised"
    graded = evaluate(out, "task=answers", "limit=3", f"out={tmp_path / 'again'}")
    assert graded["accuracy"]["n"] == 3
