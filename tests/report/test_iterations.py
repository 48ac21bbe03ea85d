"""``task=iterations``: the published table to the digit, files made by hand, and mistakes."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from latent_lab.config import ConfigError
from latent_lab.job import job
from latent_lab.report.iterations import aligned
from latent_lab.report.iterations_figure import looks_of, spread
from tests.pages import Outline

REPOSITORY = Path(__file__).resolve().parents[2]
PUBLISHED = "iterated_summarization/aggregated_iteration_grading_results_with_year.csv"


def analysed(path: Path, folder: Path, *overrides: str) -> dict[str, Any]:
    """Analyse a file within this process."""
    asked = job("eval", ["task=iterations", f"path={path}", f"out={folder}", *overrides])
    returned: dict[str, Any] = asked.config.task.run(asked)
    return returned


# The published table


@pytest.fixture(scope="module")
def published(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path, list[str]]:
    """Result, folder and what the command said."""
    folder = tmp_path_factory.mktemp("published")
    command = [sys.executable, "-X", "importtime", "-m", "latent_lab.eval", "task=iterations"]
    command += [f"path={data_folder / PUBLISHED}", "out=again"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False)
    lines = ended.stderr.splitlines()
    assert ended.returncode == 0, ended.stderr
    assert not any(line.rpartition("|")[2].strip() in ("torch", "transformers") for line in lines)
    said = [line for line in lines if not line.startswith("import time:") and "fontManager" not in line]
    return json.loads((folder / "again/result.json").read_text()), folder / "again", said


# Method: accuracy by iteration; 2024 and 2025, first and last; fixed, broken; gain and SEM of the last; right at any iteration.
HEADLINES: dict[str, tuple[list[float], list[float], tuple[int, int], float, float, float]] = {
    "backtracking": ([62.92, 66.25, 69.17, 70.42, 74.17], [73.3, 81.7, 52.5, 66.7], (28, 1), 11.25, 2.50, 77.5),
    "postThink": ([62.92, 66.67, 70.00, 72.08, 72.50], [73.3, 79.2, 52.5, 65.8], (27, 4), 9.58, 1.98, 75.4),
    "base_sum": ([62.92, 70.42, 65.83, 67.92, 70.83], [73.3, 77.5, 52.5, 64.2], (25, 6), 7.92, 1.98, 75.0),
    "lastk": ([62.92, 66.25, 66.67, 66.67, 69.58], [73.3, 78.3, 52.5, 60.8], (21, 5), 6.67, 1.42, 72.5),
    "answer_only": ([62.92, 66.67, 70.42, 67.50, 68.33], [73.3, 80.8, 52.5, 55.8], (27, 14), 5.42, 2.89, 77.9),
    "wait": ([62.92, 63.33, 63.33, 63.33, 63.33], [73.3, 73.3, 52.5, 53.3], (2, 1), 0.42, 1.80, 64.2),
    "firstk": ([62.92, 55.42, 57.50, 54.17, 55.42], [73.3, 65.8, 52.5, 45.0], (20, 38), -7.50, 2.19, 78.8),
}


def in_percent(share: dict[str, Any], digits: int = 2) -> float:
    return round(100 * share["value"], digits)


@pytest.mark.parametrize("name", HEADLINES)
def test_the_published_table_comes_out_to_the_digit(name: str, published: tuple[dict[str, Any], Path, list[str]]) -> None:
    result, _, _ = published
    accuracy, years, fixed_broken, gain, sem, any_right = HEADLINES[name]
    method = result["methods"][name]
    assert [in_percent(each["accuracy"]) for each in method["iterations"]] == accuracy
    assert [in_percent(method["iterations"][k]["per_year"][y], 1) for y in ("2024", "2025") for k in (0, -1)] == years
    assert (method["gain"]["fixed"], method["gain"]["broken"]) == fixed_broken
    assert in_percent(method["gain"]["difference"]) == gain
    assert round(100 * method["iterations"][-1]["sem_over_runs"], 2) == sem
    assert in_percent(method["choices"]["any_right"], 1) == any_right
    assert (method["num_chains"], method["num_problems"], method["iterations"][-1]["accuracy"]["n"]) == (240, 60, 60)


def test_runs_missing_and_changed_answers_are_the_published_ones(published: tuple[dict[str, Any], Path, list[str]]) -> None:
    methods = published[0]["methods"]
    last = methods["backtracking"]["iterations"][-1]
    assert {run: round(100 * share, 1) for run, share in last["per_run"].items()} == {
        "seed0": 70.0, "seed1": 70.0, "seed2": 76.7, "seed3": 80.0,
    }  # fmt: skip
    assert [each["missing"] for each in methods["backtracking"]["iterations"]] == [9, 9, 1, 1, 3]
    assert [each["changed"] for each in methods["backtracking"]["transitions"]] == [53, 42, 34, 26]
    assert [each["changed"] for each in methods["wait"]["transitions"]] == [18, 9, 11, 9]
    assert {name: each["count"] for name, each in methods["backtracking"]["classes"].items()} == {
        "always_right": 130, "improved_right": 28, "regressed_right": 20,
        "improved_wrong": 7, "regressed_wrong": 1, "always_wrong": 54,
    }  # fmt: skip
    assert published[0]["shared_first"] is True
    assert published[0]["flags_disagree"] == 1  # 045 for 45
    assert in_percent(published[0]["floors"]["majority"]) == 6.67  # the answer of four problems is 104


def test_stopping_without_labels_is_worth_what_was_published(published: tuple[dict[str, Any], Path, list[str]]) -> None:
    methods = published[0]["methods"]
    assert in_percent(methods["backtracking"]["choices"]["last_given"], 1) == 74.6
    two = {name: in_percent(methods[name]["choices"]["two_alike"], 1) for name in ("answer_only", "base_sum", "backtracking")}
    assert two == {"answer_only": 72.5, "base_sum": 70.0, "backtracking": 70.0}
    three = {name: in_percent(methods[name]["choices"]["three_alike"], 1) for name in ("backtracking", "postThink")}
    assert three == {"backtracking": 72.1, "postThink": 72.5}


def test_four_chains_vote_and_every_rule_for_ties_is_there(published: tuple[dict[str, Any], Path, list[str]]) -> None:
    votes = published[0]["methods"]["backtracking"]["votes"]
    assert {rule: round(100 * share, 1) for rule, share in votes[-1]["rules"].items()} == {
        "shared": 80.8, "lost": 78.3, "won": 85.0, "first": 80.0,
        "half_shared": 76.7, "half_right": 80.0, "most_right": 73.3,
    }  # fmt: skip
    assert (votes[-1]["rule"], in_percent(votes[-1]["accuracy"], 1), votes[-1]["ties"]) == ("shared", 80.8, 8)
    assert round(100 * votes[0]["rules"]["first"], 1) == 73.3


def test_the_ranking_of_the_leaders_is_not_significant(published: tuple[dict[str, Any], Path, list[str]]) -> None:
    result, _, said = published
    pairs = {(each["better"], each["worse"]): each for each in result["ranking"]["pairs"]}
    assert len(pairs) == 21
    leaders = pairs["backtracking", "postThink"]
    assert (leaders["table"], in_percent(leaders["difference"], 1)) == ([161, 13, 17, 49], 1.7)
    assert leaders["mcnemar_p"] == pytest.approx(0.5847, abs=1e-4)
    assert result["ranking"]["verdict"] == (
        "7 of 21 pairs differ after Holm; backtracking, the first, is ahead of wait, firstk; no pair among the first 5 "
        "(backtracking, postThink, base_sum, lastk, answer_only) differs: their order is not significant"
    )
    assert result["gains"] == (
        "better from first to last: backtracking, base_sum, lastk, postThink; worse from first to last: firstk "
        "(sign-flip test after Holm over 7)"
    )
    assert [line for line in said if line.startswith(("accuracy", "backtracking", "a vote", "again"))] == [
        "accuracy, %       0      1      2      3      4                    gain  fixed/broken  McNemar p    Holm  sign-flip p   "
        "Holm  vote",
        "backtracking  62.92  66.25  69.17  70.42  74.17  +11.25 [+7.08, +15.42]          28/1      1e-07   8e-07        1e-06  "
        "7e-06  80.8",
        "a vote of backtracking's 4 runs: 80.8 [71.2, 89.6], at first 75.0 [64.2, 84.6] (shared, 8 ties; other rules: lost 78.3, "
        "won 85.0, first 80.0, half_shared 76.7, half_right 80.0, most_right 73.3)",
        "again: report.html, iterations.png, tables.csv, samples.jsonl, result.json",
    ]


def test_files_hold_every_chain_and_every_accuracy(published: tuple[dict[str, Any], Path, list[str]]) -> None:
    _, folder, _ = published
    rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert len(rows) == 1680
    assert rows[0] == {
        "method": "backtracking", "run": "seed0", "problem": "0", "year": "2025", "gold": "468",
        "answers": ["468"] * 5, "right": [True] * 5, "outcome": "always_right", "error": False,
    }  # fmt: skip
    table = list(csv.DictReader((folder / "tables.csv").read_text().splitlines()))
    assert len(table) == 7 * 5 * (1 + 4 + 2)
    assert (table[0]["method"], table[0]["group"], table[0]["n"]) == ("answer_only", "all", "60")
    assert (folder / "iterations.png").read_bytes().startswith(b"\x89PNG")
    page = (folder / "report.html").read_text()
    assert "74.17 [" in page
    assert "+11.25 [+7.08, +15.42]" in page
    assert "regressed right" in page


# By hand


def written(folder: Path, lines: list[str], name: str = "table.csv") -> Path:
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder / name


HEADER = "problem_id,seed,experiment_type,iteration_0_correct,iteration_1_correct"


def test_methods_runs_and_iterations_may_be_any(tmp_path: Path) -> None:
    lines = [HEADER, "1,a,<b>one</b>,0,1", "2,a,<b>one</b>,1,1", "1,a,two $x_1$,0,0", "2,a,two $x_1$,1,0", "2,b,two $x_1$,1,1"]
    result = analysed(written(tmp_path, lines), tmp_path / "out")
    assert result["ranking"]["order"] == ["<b>one</b>", "two $x_1$"]
    one, two = result["methods"].values()
    assert [each["accuracy"]["value"] for each in one["iterations"]] == [0.5, 1.0]
    assert [each["accuracy"]["value"] for each in two["iterations"]] == pytest.approx([2 / 3, 1 / 3])
    assert ("votes" in one, two["votes"][-1]["rule"], result["has_answers"]) == (False, "half_shared", False)
    assert not {"missing", "per_year", "truncated", "behaviours"} & set(one["iterations"][0])
    page = Outline((tmp_path / "out/report.html").read_text())
    assert "<b>one</b>" in page.text
    assert not {"b", "script", "link"} & set(page.tags)


@pytest.mark.parametrize("iterations", [1, 12])
def test_one_method_one_run_and_few_or_many_iterations(iterations: int, tmp_path: Path) -> None:
    columns = ",".join(f"iteration_{k}_correct" for k in range(iterations))
    lines = [f"problem_id,seed,experiment_type,{columns}", "1,a,only," + ",".join("1" * iterations)]
    result = analysed(written(tmp_path, lines), tmp_path / "out")
    assert (result["num_iterations"], len(result["methods"]["only"]["transitions"])) == (iterations, iterations - 1)
    assert result["methods"]["only"]["gain"]["mcnemar_p"] == 1.0
    assert result["gains"] == "no method changes from first to last (sign-flip test after Holm over 1)"


def test_a_run_s_results_tell_of_texts_and_tokens(tmp_path: Path) -> None:
    def thought(k: int, answer: str, correct: bool, ended: str, **more: Any) -> dict[str, Any]:
        text = "Wait. So it is 3."
        return {"iteration": k, "reasoning": text, "answer": answer, "correct": correct, "finish_reason": ended, **more}

    calls = [[{"call_index": 0, "token_usage": {"completion_tokens": n}}] for n in (1000, 80)]
    record = {
        "problem_id": "1",
        "correct_answer": "3",
        "iterations": [thought(0, "2", False, "length", summary="I think it is 2."), thought(1, "3", True, "stop")],
        "detailed_metrics": {"iteration_0_reasoning": calls[0], "iteration_0_summary": calls[1]},
    }
    records = [record, {"problem_id": "2", "correct_answer": "3", "error": "x", "status": "error"}]
    whole = {"experiment_name": "base", "results": records}
    result = analysed(written(tmp_path, [json.dumps(whole)], "results.json"), tmp_path / "out")
    first, second = result["methods"]["base"]["iterations"]
    assert (first["truncated"]["value"], second["truncated"]["value"]) == (1.0, 0.0)
    assert first["compression"] == {"value": 0.08, "n": 1, "low": 0.08, "high": 0.08}
    assert first["behaviours"]["summary"]["shares"]["uncertainty"]["value"] == 1.0
    assert second["behaviours"]["reasoning"]["shares"]["deduction"]["value"] == 0.5
    assert (first["behaviours_kept"]["covered"]["value"], "behaviours_kept" in second) == (0.0, False)
    assert (result["errors"], second["accuracy"]["value"], first["missing"]) == (1, 0.5, 1)
    page = (tmp_path / "out/report.html").read_text()
    assert "1 of them ended in an error" in page
    assert "8.0 [8.0, 8.0]" in page


def test_a_limit_takes_the_first_problems_and_the_seed_draws_the_resamples(tmp_path: Path) -> None:
    lines = [
        HEADER,
        *(f"{i},{run},{m},0,{(i * a) % 7 > 3:d}" for i in range(60) for m, a in (("m", 2), ("n", 5)) for run in "ab"),
    ]
    path = written(tmp_path, lines)
    assert analysed(path, tmp_path / "few", "limit=5")["num_chains"] == 20
    drawn = [analysed(path, tmp_path / f"seed{seed}", f"seed={seed}")["ranking"]["pairs"][0]["difference"] for seed in (0, 1)]
    assert drawn[0]["value"] == drawn[1]["value"]
    assert drawn[0] != drawn[1]


def test_the_order_of_rows_changes_nothing(tmp_path: Path) -> None:
    rows = [
        f"{i},{run},{m},{(i * a) % 5 > 1:d},{(i * a) % 7 > 3:d}"
        for i in range(9)
        for m, a in (("m", 2), ("n", 5))
        for run in "ab"
    ]
    forth = analysed(written(tmp_path, [HEADER, *rows]), tmp_path / "forth")
    back = analysed(written(tmp_path, [HEADER, *reversed(rows)]), tmp_path / "back")
    assert {**forth, "seconds": 0} == {**back, "seconds": 0}


def test_the_same_again_is_taken_from_the_folder_and_a_changed_file_is_not(tmp_path: Path) -> None:
    path = written(tmp_path, [HEADER, "1,a,m,0,1"])
    first = analysed(path, tmp_path / "out")
    assert analysed(path, tmp_path / "out") == first
    other = analysed(path, tmp_path / "other")
    assert {**other, "seconds": 0} == {**first, "seconds": 0}
    written(tmp_path, [HEADER, "1,a,m,1,1"])
    with pytest.raises(ValueError, match="chains_read: stored "):
        analysed(path, tmp_path / "out")
    assert analysed(path, tmp_path / "out", "overwrite=true")["methods"]["m"]["iterations"][0]["accuracy"]["value"] == 1.0


def test_without_out_the_folder_is_named_by_the_file(tmp_path: Path) -> None:
    asked = job("eval", ["task=iterations", f"path={written(tmp_path, [HEADER, '1,a,m,0,1'])}", f"outputs={tmp_path}"])
    asked.config.task.run(asked)
    assert (tmp_path / "iterations/table/result.json").is_file()


# Small parts


def test_labels_keep_their_distance() -> None:
    assert spread({"a": 1.0, "b": 1.1, "c": 5.0}, 0.5, 9.0) == {"a": 1.0, "b": 1.5, "c": 5.0}
    assert spread({"a": 1.0, "b": 1.1, "c": 1.2}, 0.5, 1.5) == {"a": 0.5, "b": 1.0, "c": 1.5}


def test_names_in_a_figure_lose_what_all_of_them_say() -> None:
    assert [look.label for look in looks_of(["aime_14b_base_4iter", "aime_14b_wait_4iter"]).values()] == ["base", "wait"]
    assert [look.label for look in looks_of(["last_k", "first_k", "a_name_that_is_too_long_k"]).values()] == [
        "last", "first", "a_name_t…too_long",
    ]  # fmt: skip
    assert [look.label for look in looks_of(["only_one"]).values()] == ["only_one"]


def test_rows_are_aligned() -> None:
    assert aligned([["name", "x"], ["a", "10.0"]]) == ["name     x", "a     10.0"]


# Mistakes


def test_no_path_and_a_bad_file_are_one_line() -> None:
    asked = job("eval", ["task=iterations"])
    allowed = "allowed: a table (.csv), a results.json, a folder of them, or the samples.jsonl of task=summarize; write path=FILE"
    with pytest.raises(ConfigError, match=r"^path: given nothing; ") as error:
        asked.config.task.run(asked)
    assert str(error.value) == f"path: given nothing; {allowed}"


def test_a_bad_row_ends_the_command_with_code_2_and_leaves_no_folder(tmp_path: Path) -> None:
    written(tmp_path, [HEADER, "1,a,m,0,1", "2,a,m,0,maybe"])
    command = [sys.executable, "-m", "latent_lab.eval", "task=iterations", "path=table.csv", "out=out"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "error: table.csv, row 3, column 'iteration_1_correct': found 'maybe'; allowed: 0 or 1\n"
    assert not (tmp_path / "out").exists()
