"""Which problems are thought about: what each setting leaves, shards that make up the whole, and names that do not exist."""

import json
from pathlib import Path
from typing import Any

import pytest
from faultserver import Act, FaultServer, answer, error
from hypothesis import given
from hypothesis import strategies as st

from latent_lab.config import ConfigError
from latent_lab.deliberation.analysis import analysis
from latent_lab.deliberation.forms import read
from latent_lab.deliberation.samples import unanswered, wrong
from latent_lab.deliberation.selection import Selection
from latent_lab.files import write_lines
from latent_lab.job import job
from latent_lab.problems import DataError, Problem
from latent_lab.report.summarize import deliberated, prepared

SPLIT = [Problem(f"p{n}", f"What is 3+{n}?", (), str(3 + n)) for n in range(6)]


def names(chosen: list[Problem]) -> str:
    return " ".join(problem.id for problem in chosen)


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        ({}, "p0 p1 p2 p3 p4 p5"),
        ({"ids": ["p4", "p1"]}, "p1 p4"),  # in the order of the split
        ({"exclude": ["p0", "p5"]}, "p1 p2 p3 p4"),
        ({"range": "1-3"}, "p1 p2 p3"),
        ({"problems": 2, "exclude": ["p0"]}, "p1 p2"),  # the first of those that are left
        ({"shard": "2/4"}, "p1 p5"),
        ({"range": "1-4", "ids": ["p0", "p2", "p3"], "exclude": ["p3"]}, "p2"),
        ({"problems": None, "range": "0-4", "shard": "1/2"}, "p0 p2 p4"),
    ],
)
def test_each_setting_leaves_what_it_says(settings: dict[str, Any], left: str) -> None:
    assert names(Selection(**settings).selected(SPLIT)) == left


def test_a_limit_counts_what_is_left() -> None:
    assert names(Selection(exclude=["p0"], shard="1/2").selected(SPLIT, limit=3)) == "p1 p3"


@given(st.integers(1, 40), st.integers(1, 9))
def test_shards_share_out_the_whole(count: int, of: int) -> None:
    split = [Problem(str(n), "q", (), "a") for n in range(count)]
    parts = [Selection(shard=f"{i}/{of}").selected(split) for i in range(1, min(of, count) + 1)]
    assert sorted(int(problem.id) for part in parts for problem in part) == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ids": ["p1", "p9"]}, r"^task\.ids: given p9; the split has no such problem; allowed: p0, p1, p2, p3, p4, \.\.\.$"),
        ({"exclude": ["q"]}, r"^task\.exclude: given q; the split has no such problem; allowed: p0, "),
        ({"range": "2-6"}, r"^task\.range: given 2-6; the split has 6 problems; allowed: 0-5$"),
    ],
)
def test_what_the_split_does_not_have_is_said(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Selection(**settings).selected(SPLIT)


def test_nothing_left_is_said() -> None:
    with pytest.raises(DataError, match=r"^task\.shard=7/7: no problem of 6 is left; choose others"):
        Selection(shard="7/7").selected(SPLIT)
    with pytest.raises(DataError, match=r"^task\.ids=\['p1'\], task\.range=2-3: no problem of 6 is left"):
        Selection(ids=["p1"], range="2-3").selected(SPLIT)
    with pytest.raises(DataError, match=r"^task\.errors_of=x: every chain there has its answer; nothing is left to ask again$"):
        Selection(errors_of="x").selected(SPLIT)
    with pytest.raises(DataError, match=r"^task\.wrong_of=x: every chain there ends right; nothing is left to think about$"):
        Selection(wrong_of="x").selected(SPLIT)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.shard=0/4", r"^task\.shard: given 0/4; allowed: i/n with i from 1 to n, as in 1/4$"),
        ("task.shard=5/4", r"^task\.shard: given 5/4; "),
        ("task.shard=half", r"^task\.shard: given half; "),
        ("task.range=3-1", r"^task\.range: given 3-1; allowed: two places counted from 0, the smaller first, as in 0-29$"),
        ("task.range=3", r"^task\.range: given 3; "),
        ("task.ids=[a,a]", r"^task\.ids: given \['a', 'a'\]; allowed: names, each once$"),
    ],
)
def test_a_wrong_setting_is_one_line(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        job("eval", ["task=summarize", "dataset=stories", override])


# With a server


def command(folder: Path, faults: FaultServer, *overrides: str) -> Any:
    path = folder / "problems.jsonl"
    path.write_text("".join(json.dumps({"id": p.id, "question": p.question, "answer": p.answer}) + "\n" for p in SPLIT))
    server = ["backend=openai", "backend.model=tiny", f"backend.base_url={faults.base_url}", "backend.api_key_env=null"]
    small = ["task.chains=2", "task.samples=3", "task.iterations=1", "task.methods=[answer_only]", "backend.max_attempts=1"]
    return job("eval", ["task=summarize", *server, *small, "dataset=file", f"dataset.path={path}", "dataset.id=id", *overrides])


def rows_of_command(folder: Path, faults: FaultServer, *overrides: str) -> list[dict[str, Any]]:
    made = command(folder, faults, *overrides)
    plan, problems = prepared(made.config.task, made.config)
    rows, _ = deliberated(plan, problems, Path(made.config.out), made.config)
    return rows


def say(body: dict[str, Any]) -> Any:
    return answer(f"</think>\\boxed{{{(len(str(body['messages'])) + body['seed']) % 3 + 3}}}")


def test_the_rows_of_all_shards_are_the_rows_of_the_whole(tmp_path: Path) -> None:
    with FaultServer(say=say).running() as faults:
        whole = rows_of_command(tmp_path, faults, f"out={tmp_path / 'whole'}")
        asked = len(faults.seen)
        parts = [rows_of_command(tmp_path, faults, f"task.shard={i}/3", f"out={tmp_path / f'part{i}'}") for i in range(1, 4)]
    in_order = sorted(json.dumps(row) for part in parts for row in part)
    assert in_order == sorted(map(json.dumps, whole))
    assert len(faults.seen) == 2 * asked
    # One after another in a file, they are read as the whole is.
    for name, rows in (("whole", [whole]), ("parts", parts)):
        write_lines(tmp_path / f"{name}.jsonl", [row for part in rows for row in part])
    assert analysis(read(tmp_path / "parts.jsonl"), 0)["methods"] == analysis(read(tmp_path / "whole.jsonl"), 0)["methods"]


def test_an_unknown_problem_is_said_before_anything_is_paid(tmp_path: Path) -> None:
    with FaultServer().running() as faults:
        made = command(tmp_path, faults, "task.ids=[p1,p7]", f"out={tmp_path / 'o'}")
        with pytest.raises(ConfigError, match=r"^task\.ids: given p7; "):
            made.config.task.run(made)
        assert faults.seen == []
    assert not (tmp_path / "o").exists()


def test_only_what_failed_or_has_no_answer_elsewhere_is_asked_again(tmp_path: Path) -> None:
    def silent_on_p4(body: dict[str, Any]) -> Any:
        return answer("I do not know") if "3+4" in str(body["messages"]) else say(body)

    with FaultServer(say=silent_on_p4).running() as faults:
        rows_of_command(tmp_path, faults, f"out={tmp_path / 'calm'}")
        prompts = [seen.prompt for seen in faults.seen if "3+2" in seen.prompt and "ATTEMPT" not in seen.prompt]
    acts: dict[str, list[Act]] = {prompt: [error(400, "too long")] * 9 for prompt in prompts}
    with FaultServer(acts, silent_on_p4).running() as faults:
        rows = rows_of_command(tmp_path, faults, f"out={tmp_path / 'first'}")
        write_lines(tmp_path / "first" / "samples.jsonl", rows)
    with FaultServer(say=say).running() as faults:
        again = command(tmp_path, faults, f"task.errors_of={tmp_path / 'first'}", f"out={tmp_path / 'again'}")
        _, problems = prepared(again.config.task, again.config)
        assert names(problems) == "p2 p4"
        nowhere = command(tmp_path, faults, f"task.errors_of={tmp_path / 'nowhere'}", f"out={tmp_path / 'again'}")
        with pytest.raises(DataError, match=r"samples\.jsonl: there is no such file; allowed: the samples\.jsonl that task=summ"):
            prepared(nowhere.config.task, nowhere.config)
        assert faults.seen == []


def test_a_first_attempt_without_an_answer_only_votes_less() -> None:
    row = {"id": "p", "chain": 0, "iteration": 0, "answer": None, "error": None}
    assert unanswered([row | {"method": "samples"}]) == []
    assert unanswered([row | {"method": "whole"}, row | {"method": "whole", "iteration": 1, "answer": "3"}]) == []
    assert unanswered([row | {"method": "samples", "error": "400"}]) == ["p"]


def test_what_did_not_end_right_is_chosen_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    row = {"chain": 0, "iteration": 0, "method": "whole", "correct": True}
    rows = [
        {**row, "id": "p0"}, {**row, "id": "p0", "iteration": 1, "correct": False},  # broken at the last
        {**row, "id": "p1", "correct": False}, {**row, "id": "p1", "iteration": 1},
        {**row, "id": "p2"}, {**row, "id": "p2", "chain": 1, "correct": False},  # one chain of two
        {**row, "id": "p3"}, {**row, "id": "p3", "method": "samples", "correct": False},  # only votes
    ]  # fmt: skip
    assert wrong(rows) == ["p0", "p2"]

    def wrong_on_p4(body: dict[str, Any]) -> Any:
        (number,) = (n for n in range(6) if f"3+{n}?" in str(body["messages"]))
        return answer(f"</think>\\boxed{{{1 if number == 4 else 3 + number}}}")

    with FaultServer(say=wrong_on_p4).running() as faults:
        (tmp_path / "first").mkdir()
        write_lines(tmp_path / "first" / "samples.jsonl", rows_of_command(tmp_path, faults, f"out={tmp_path / 'first'}"))
        caplog.clear()
        again = command(tmp_path, faults, f"task.wrong_of={tmp_path / 'first'}", f"out={tmp_path / 'again'}")
        found = again.config.task.run(again)
    warning = "problems were chosen by their gold answers; what is right among them is no accuracy of the dataset"
    assert (found["num_problems"], found["chosen_by_gold"]) == (1, warning)
    assert f"task.wrong_of: {warning}" in caplog.messages
    assert f"{warning[0].upper()}{warning[1:]}." in (tmp_path / "again/report.html").read_text()
