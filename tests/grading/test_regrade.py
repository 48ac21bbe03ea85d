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
from latent_lab.problems import DataError
from latent_lab.problems.files import Row
from latent_lab.report.confusion_figure import Panel, draw
from latent_lab.report.regrade import as_decimal, output

REPOSITORY = Path(__file__).resolve().parents[2]
COWS = "There are 5 cows. How much do 10 cost?"
ROWS = [
    # Right without the tool and with it.
    {"question": COWS, "text_output": f"{COWS}\n<<3*4=12>>\n### 12", "answer_output": "12", "answer": "12"},
    # Execution: the chain is right, its arithmetic is not.
    {"question": COWS, "text_output": "<<2+2=6>>\n<<6*10=50>>\n### 50", "answer_output": "50", "answer": "40.0"},
    # Planning: the arithmetic is right, the answer is not.
    {"question": COWS, "text_output": "<<3*4=12>>\n### 12", "answer_output": "12", "answer": 99},
    # Unclear: neither is.
    {"question": COWS, "text_output": "<<3*4=15>>\n### 15", "answer_output": 15, "answer": "99"},
    # The stricter tool leaves the 5 of the question alone, the other takes it for the first step's result.
    {"question": COWS, "text_output": "<<2+2=5>>\n<<5*10=50>>\n### 50", "answer_output": "50", "answer": "40"},
    # No step and no number.
    {"question": COWS, "text_output": "I do not know", "answer_output": None, "answer": "1,000"},
]


def start(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the door as a person does."""
    command = [sys.executable, "-X", "importtime", "-m", "latent_lab.eval", "task=regrade", *arguments]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)


def said(stderr: str) -> list[str]:
    """Lines of stderr without Python's import report."""
    return [line for line in stderr.splitlines() if not line.startswith("import time:")]


def regraded(folder: Path, rows: list[dict[str, Any]], *overrides: str) -> dict[str, Any]:
    """Regrade rows within this process."""
    (folder / "rows.json").write_text(json.dumps(rows))
    asked = job("eval", ["task=regrade", f"path={folder / 'rows.json'}", f"out={folder / 'out'}", *overrides])
    returned: dict[str, Any] = asked.config.task.run(asked)
    return returned


def changed(**changes: Any) -> dict[str, Any]:
    return {key: value for key, value in (ROWS[0] | changes).items() if value is not ...}


# The published study


def test_the_published_outputs_are_regraded(data_folder: Path, tmp_path: Path) -> None:
    ended = start(f"path={data_folder / 'gsm_outputs/gpt2_cot_gsm_hard.json'}", "out=again", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (0, "")
    assert said(ended.stderr) == [
        "again: samples.jsonl, tables.csv, confusion.png, result.json",
        "660 outputs, right within 1 without and with the tool: published 53 and 126; corrected 53 and 139; corrected_strict 53 "
        "and 137; corrected tool +13.0 points [10.5, 15.6], McNemar p=5e-23; errors: 89 execution, 81 planning, 437 unclear",
    ]
    assert not any(line.rpartition("|")[2].strip() in ("torch", "transformers") for line in ended.stderr.splitlines())
    result = json.loads((tmp_path / "again/result.json").read_text())
    assert result["n"] == 660
    assert result["published"] == {"original_correct": 53, "tool_correct": 126, "table": [45, 8, 81, 526]}
    assert result["corrected"] == {"original_correct": 53, "tool_correct": 139, "table": [50, 3, 89, 518]}
    assert result["corrected_strict"] == {"original_correct": 53, "tool_correct": 137, "table": [50, 3, 87, 520]}
    assert result["strict_differs"] == [{"row": 263, "corrected": True}, {"row": 502, "corrected": True}]
    assert result["errors"] == {"none": 53, "execution": 89, "planning": 81, "unclear": 437}
    assert (result["rows_without_steps"], result["rows_without_tool"], result["rows_without_number"]) == (0, 0, 65)
    tables = {(row["tool"], row["rule"]): row["table"] for row in result["gradings"] if row["group"] == "all"}
    # Original and corrected tool as the reference recomputed them: 48 in the run, 47 at 1e-6, 159 with the tool at 1e-3.
    assert [sum(tables["corrected", rule][:2]) for rule in ("in_run", "exact", "relative_1e-6")] == [48, 47, 47]
    assert tables["corrected", "relative_1e-3"] == [50, 0, 109, 501]
    mcnemar = next(row["mcnemar_p"] for row in result["gradings"] if row["tool"] == "published")
    assert mcnemar == pytest.approx(3e-16, rel=0.2)
    samples = [json.loads(line) for line in (tmp_path / "again/samples.jsonl").read_text().splitlines()]
    assert sum(row["corrected_right"] for row in samples) == 139
    assert (tmp_path / "again/confusion.png").read_bytes().startswith(b"\x89PNG")


# What a few rows amount to


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("few")
    return regraded(folder, ROWS), folder / "out"


def test_tools_are_compared_with_the_answers_as_they_were(few: tuple[dict[str, Any], Path]) -> None:
    result, _ = few
    assert result["published"] == {"original_correct": 1, "tool_correct": 3, "table": [1, 0, 2, 3]}
    assert result["corrected"] == {"original_correct": 1, "tool_correct": 3, "table": [1, 0, 2, 3]}
    assert result["corrected_strict"] == {"original_correct": 1, "tool_correct": 2, "table": [1, 0, 1, 4]}
    assert result["strict_differs"] == [{"row": 5, "corrected": True}]
    assert result["errors"] == {"none": 1, "execution": 2, "planning": 1, "unclear": 2}
    assert (result["rows_without_number"], result["rows_without_steps"], result["rows_without_tool"]) == (1, 1, 1)
    assert result["steps"] == {"ok": 3, "wrong": 4, "invalid": 0}
    assert result["ambiguous_links"] == 1


def test_every_tool_meets_every_rule_and_the_corrected_one_every_size(few: tuple[dict[str, Any], Path]) -> None:
    result, _ = few
    kept = [(row["tool"], row["rule"], row["group"], row["value"], row["n"]) for row in result["gradings"]]
    rules = ("within_one", "in_run", "exact", "relative_1e-6", "relative_1e-3")
    assert kept[:15] == [(t, r, "all", None, 6) for t in ("published", "corrected", "corrected_strict") for r in rules]
    assert kept[15:] == [
        ("corrected", "within_one", "num_steps", 0, 1),
        ("corrected", "within_one", "num_steps", 1, 3),
        ("corrected", "within_one", "num_steps", 2, 2),
        ("corrected", "within_one", "operand_digits", 2, 6),
    ]
    two_steps = result["gradings"][17]
    assert (two_steps["table"], two_steps["mcnemar_p"]) == ([0, 0, 2, 0], 0.5)
    assert two_steps["difference"] == {"value": 1.0, "n": 2, "low": 1.0, "high": 1.0}
    assert two_steps["errors"] == {"none": 0, "execution": 2, "planning": 0, "unclear": 0}


def test_the_tables_are_a_file(few: tuple[dict[str, Any], Path]) -> None:
    result, folder = few
    rows = list(csv.DictReader((folder / "tables.csv").read_text().splitlines()))
    assert len(rows) == len(result["gradings"])
    assert list(rows[0]) == [
        "tool", "rule", "group", "value", "n", "tt", "tf", "ft", "ff",
        "original", "original_low", "original_high", "with_tool", "with_tool_low", "with_tool_high",
        "difference", "difference_low", "difference_high", "mcnemar_p", "none", "execution", "planning", "unclear",
    ]  # fmt: skip
    assert [rows[5][key] for key in ("tool", "rule", "value", "n", "tt", "tf", "ft", "ff", "execution")] == [
        "corrected", "within_one", "", "6", "1", "0", "2", "3", "2",
    ]  # fmt: skip


def test_every_row_is_kept_with_its_steps(few: tuple[dict[str, Any], Path]) -> None:
    _, folder = few
    rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert [row["error"] for row in rows] == ["none", "execution", "planning", "unclear", "execution", "unclear"]
    assert rows[1] == {
        "row": 2,
        "question": COWS,
        "gold": "40.0",
        "answer": "50",
        "published_answer": "40.0",
        "corrected_answer": "40",
        "corrected_strict_answer": "40",
        "right": False,
        "published_right": True,
        "corrected_right": True,
        "corrected_strict_right": True,
        "error": "execution",
        "steps": [
            {"step": "2+2=6", "verdict": "wrong", "value": "4"},
            {"step": "6*10=50", "verdict": "wrong", "value": "40"},
        ],
        "num_steps": 2,
        "operand_digits": 2,
        "num_ambiguous_links": 0,
    }
    assert rows[5]["steps"] == []


def test_the_numbers_of_a_question_before_the_output_are_no_steps(tmp_path: Path) -> None:
    asked = "If <<1+1=3>> and 2+2 = 5, what are 3 times 3?"
    row = {"question": asked, "text_output": f"{asked} <<3*3=9>>", "answer_output": "9", "answer": "9"}
    assert output(Row(1, "here", row)).num_steps == 1


def test_a_jsonl_is_read_line_by_line_and_a_limit_takes_the_first(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS))
    asked = job("eval", ["task=regrade", f"path={tmp_path / 'rows.jsonl'}", f"outputs={tmp_path}", "limit=2"])
    assert asked.config.task.run(asked)["n"] == 2
    assert (tmp_path / "regraded/rows/result.json").is_file()


def test_the_same_again_is_taken_from_the_folder_and_a_changed_file_is_not(tmp_path: Path) -> None:
    first = regraded(tmp_path, ROWS)
    assert regraded(tmp_path, ROWS) == first
    with pytest.raises(ValueError, match="outputs_read: stored "):
        regraded(tmp_path, ROWS[:3])
    assert regraded(tmp_path, ROWS[:3], "overwrite=true")["n"] == 3


@pytest.mark.timeout(60)  # seconds, where a machine needs a few: only a hang reaches it
def test_hostile_outputs_are_graded_like_any_other(tmp_path: Path) -> None:
    texts = ["9**9**9", "<<9**9**9=1>>", "__import__('os').system('x')", "half \ud800 a character", "<<1/0=1>>", "<<٣+٤=٧>>"]
    texts += ["9" * 10**6, "<<" + "9" * 10**6 + "=1>>", "(" * 10**4, "<<1+1=3>>" * 10**3, "\x00"]
    rows = [changed(text_output=text, answer_output=text) for text in texts]
    result = regraded(tmp_path, rows)
    assert (result["n"], result["corrected"]["table"][3]) == (len(texts), len(texts))
    written = [json.loads(line) for line in (tmp_path / "out/samples.jsonl").read_text().splitlines()]
    assert written[3]["answer"] == "half ? a character"


@pytest.mark.parametrize(
    ("answer", "decimal"),
    [("2/3", "0.6666666666666666"), ("-10/4", "-2.5"), ("7", "7"), ("", ""), ("1/0", "1/0"), ("a/b", "a/b")],
)
def test_fractions_are_decimals_to_the_published_rules(answer: str, decimal: str) -> None:
    assert as_decimal(answer) == decimal


def test_a_repaired_fraction_is_graded_as_its_value(tmp_path: Path) -> None:
    row = changed(text_output="<<10/3=4>>\n<<4*2=8>>\n### 8", answer_output="8", answer="6.6666666667")
    tables = {
        r["rule"]: r["table"] for r in regraded(tmp_path, [row])["gradings"] if (r["tool"], r["group"]) == ("corrected", "all")
    }
    right, wrong = [0, 0, 1, 0], [0, 0, 0, 1]
    assert tables == {
        "within_one": right, "in_run": wrong, "exact": wrong, "relative_1e-6": right, "relative_1e-3": right,
    }  # fmt: skip


def test_a_figure_of_the_same_tables_has_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw("Title", "what", [Panel("one", "why", (4, 1, 7, 8)), Panel("two", "why not", (0, 0, 0, 0))], tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


# Mistakes


THREE, FOUR = "'question', 'text_output', 'answer_output'", "question, text_output, answer_output, answer"
GOLD = "the gold answer as a number, such as -12, 1,080 or 0.5"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*ROWS[:2], changed(answer=...)], f"record 3, field 'answer': missing among {THREE}; every row has {FOUR}"),
        ([changed(answer_output=[1])], "record 1, field 'answer_output': found [1] (list); allowed: text or a number"),
        ([changed(text_output=3)], "record 1, field 'text_output': found 3 (int); allowed: text"),
        ([changed(answer=None)], "record 1, field 'answer': found None (NoneType); allowed: text or a number"),
        ([changed(answer="many")], f"record 1, field 'answer': found 'many' (str); allowed: {GOLD}"),
        ([7], "record 1: found 7 (int); a record is an object with fields such as question and answer"),
    ],
)
def test_a_bad_row_is_named(rows: list[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        regraded(tmp_path, rows)
    assert str(error.value) == f"{tmp_path}/rows.json, {message}"
    assert not (tmp_path / "out").exists()


def test_what_is_no_list_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps(ROWS[0] | {"question": "q"}))
    ended = start("path=rows.json", cwd=tmp_path)
    assert ended.returncode == 2
    (line,) = said(ended.stderr)
    assert line.startswith("error: rows.json: found {'answer': ")
    assert line.endswith("a .json file is one list of records; with a record a line its name ends in .jsonl")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["path=none.json"], "none.json: no such file or folder; relative paths start at "),
        (["path="], "path: given nothing; allowed: the file of outputs to grade, a .json or .jsonl; write path=FILE"),
        ([], "path: given nothing; allowed: the file of outputs to grade, a .json or .jsonl; write path=FILE"),
    ],
)
def test_a_missing_file_is_said_to_be(arguments: list[str], message: str) -> None:
    asked = job("eval", ["task=regrade", *arguments])
    with pytest.raises((DataError, ConfigError)) as error:
        asked.config.task.run(asked)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("door", "arguments", "key"),
    [("train", [], "path"), ("eval", [], "path"), ("eval", ["task=answers"], "task.path")],
)
def test_no_other_task_takes_a_path(door: str, arguments: list[str], key: str) -> None:
    with pytest.raises(ValueError, match=f"^{key}: given x; (there is|task=answers has) no such key; allowed: "):
        job(door, [*arguments, "path=x"])


def test_a_path_may_hold_what_hydra_reads_otherwise() -> None:
    assert job("eval", ["path=a,b={c} d.json", "task=regrade"]).config.task.path == "a,b={c} d.json"
