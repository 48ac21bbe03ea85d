"""The published forms are read as they are, and what cannot be compared is said with its row."""

import json
from pathlib import Path
from typing import Any

import pytest

from latent_lab.deliberation.chains import Iteration
from latent_lab.deliberation.forms import read
from latent_lab.problems import DataError

HEADER = "problem_id,year,correct_answer_gt,iteration_0_answer,iteration_0_correct,iteration_1_answer,iteration_1_correct"
HEADER += ",seed,experiment_type,source_file"
ROWS = ["7,2025,45,12,0,045,1,seed0,wait,a.json", "8,2025,9,,0,9,1,seed0,wait,a.json"]
BARE = ["problem_id,seed,experiment_type,iteration_0_correct", "1,s,a,1", "1,s,b,0"]


def table(folder: Path, *lines: str) -> Path:
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder / "table.csv"


def test_a_row_of_the_table_is_a_chain(tmp_path: Path) -> None:
    first, second = read(table(tmp_path, HEADER, *ROWS)).chains
    assert (first.method, first.run, first.problem, first.gold, first.year) == ("wait", "seed0", "7", "45", "2025")
    assert first.iterations == (Iteration(False, "12"), Iteration(True, "045"))
    assert (first.right, first.answers, first.where) == ((False, True), ("12", "45"), f"{tmp_path}/table.csv, row 2")
    assert second.answers == (None, "9")


def test_year_gold_and_answers_may_be_missing_and_nothing_else_is_needed(tmp_path: Path) -> None:
    read_bare = read(table(tmp_path, *BARE))
    assert (read_bare.has_answers, read_bare.has_golds, read_bare.num_iterations) == (False, False, 1)
    assert list(read_bare.methods) == ["a", "b"]
    assert read_bare.problems == ["1"]


def test_columns_may_stand_in_any_order_and_flags_be_written_as_tables_do(tmp_path: Path) -> None:
    header = "\ufeffiteration_1_correct, experiment_type ,seed,iteration_0_correct,problem_id"
    path = table(tmp_path, header, "True,a,s,0.0,1")
    (chain,) = read(path).chains
    assert chain.right == (False, True)


@pytest.mark.parametrize("cell", ["", "None", "nan", "NULL"])
def test_no_answer_is_none(cell: str, tmp_path: Path) -> None:
    (chain,) = read(table(tmp_path, HEADER, f"7,2025,45,{cell},0,45,1,seed0,wait,a.json")).chains
    assert chain.answers == (None, "45")


def test_the_first_problems_of_a_table(tmp_path: Path) -> None:
    whole = read(table(tmp_path, BARE[0], "1,s,a,1", "2,s,a,1", "1,s,b,0", "2,s,b,0"))
    assert [(chain.method, chain.problem) for chain in whole.first(1).chains] == [("a", "1"), ("b", "1")]
    assert whole.first(None) == whole


NEEDED = "problem_id, seed, experiment_type and iteration_k_correct for each k from 0"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["problem_id,experiment_type,iteration_0_correct", "1,a,1"],
         ", row 1: column 'seed' is missing among 'problem_id', 'experiment_type', 'iteration_0_correct'; "
         f"every table has {NEEDED}"),
        (["problem_id,seed,experiment_type", "1,s,a"],
         ", row 1: column 'iteration_0_correct' is missing among 'problem_id', 'seed', 'experiment_type'; "
         f"every table has {NEEDED}"),
        ([HEADER.replace("iteration_0_correct", "first"), *ROWS], "column 'iteration_0_correct' is missing among "),
        ([BARE[0] + ",seed", "1,s,a,1,s"], ", row 1: column 'seed' stands there twice; allowed: once"),
        ([*BARE, "2,s,a,2"], ", row 4, column 'iteration_0_correct': found '2'; allowed: 0 or 1"),
        ([*BARE, "2,s,a,"], ", row 4, column 'iteration_0_correct': found ''; allowed: 0 or 1"),
        ([*BARE, "2,s,a"], ", row 4: 3 cells, the header has 4; allowed: equally many"),
        ([*BARE, ",s,a,1"], ", row 4, column 'problem_id': empty; fill it in or remove the row"),
        ([*BARE, "", "1,s,b,1"], ", row 5: problem '1' of method 'b' in run 's' stands in {path}, row 3 already; "
                                 "allowed: once, with all its iterations; remove one"),
        ([HEADER, *ROWS, "7,2025,46,1,0,1,0,seed1,wait,b.json"],
         ", row 4: the gold answer of problem '7' is '46', in {path}, row 2 it is '45'; "
         "allowed: one for all chains of a problem"),
        (BARE[:1], ": holds no row below its header; at least one is needed"),
    ],
)  # fmt: skip
def test_a_bad_table_is_one_line_with_its_row(lines: list[str], message: str, tmp_path: Path) -> None:
    path = table(tmp_path, *lines)
    with pytest.raises(DataError) as error:
        read(path)
    assert str(error.value).startswith(str(path))
    assert message.replace("{path}", str(path)) in str(error.value)
    assert "\n" not in str(error.value)


# results.json


def usage(*written: int) -> list[dict[str, Any]]:
    """The calls for one text as the published code keeps them, totals last."""
    calls = [{"call_index": i, "token_usage": {"completion_tokens": count}} for i, count in enumerate(written)]
    return [*calls, {"num_api_calls": len(calls), "total_token_usage": {"completion_tokens": sum(written)}}]


def thought(k: int, answer: str | None, correct: bool | None, ended: str = "stop", **more: Any) -> dict[str, Any]:
    return {
        "iteration": k,
        "reasoning": f"Wait, so {answer}.",
        "answer": answer,
        "correct": correct,
        "finish_reason": ended,
        **more,
    }


def results(folder: Path, *records: Any, name: str = "results.json", **whole: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps({"experiment_name": "base", "config": {}, "results": [*records], **whole}))
    return folder / name


SEVEN = {
    "problem_id": 7,
    "question": "?",
    "correct_answer": "45",
    "iterations": [
        thought(
            0, "12", False, "length", summary="<think>hm</think>It is 12.", post_think_summary="It is 12.", summary_answer="12"
        ),
        thought(1, "045", True),
    ],
    "detailed_metrics": {"iteration_0_reasoning": usage(8000, 192), "iteration_0_summary": usage(512)},
}
BROKEN = {"problem_id": "8", "error": "Could not extract reasoning trace", "status": "error"}


def test_a_record_of_results_is_a_chain(tmp_path: Path) -> None:
    (chain,) = read(results(tmp_path / "base_20250513", SEVEN)).chains
    assert (chain.method, chain.run, chain.problem, chain.gold) == ("base", "base_20250513", "7", "45")
    assert chain.iterations == (
        Iteration(False, "12", True, "Wait, so 12.", "It is 12.", 8192, 512, "12", False, False),
        Iteration(True, "045", False, "Wait, so 045.", None, None, None),
    )


def test_a_run_that_only_goes_on_writing_has_other_names_for_its_fields(tmp_path: Path) -> None:
    row = {
        "iteration": 0,
        "prompt": "?",
        "reasoning_output": "so 3",
        "answer": "3",
        "correct": True,
        "final_finish_reason": "length",
    }
    record = {"problem_id": "1", "correct_answer": 3, "iterations": [{**row, "api_calls": usage(40)}], "status": "done"}
    (chain,) = read(results(tmp_path, record, name="seed2_wait_results.json")).chains
    assert chain.run == "seed2_wait_results"
    assert chain.iterations == (Iteration(True, "3", True, "so 3", None, 40, None),)


def test_what_ended_in_an_error_is_wrong_throughout_and_where_no_answer_was_found_it_is_wrong(tmp_path: Path) -> None:
    silent = {"problem_id": "9", "correct_answer": "1", "iterations": [thought(0, None, None), thought(1, "", False)]}
    _, broken, nothing = read(results(tmp_path, SEVEN, BROKEN, silent)).chains
    assert (broken.is_error, broken.right, broken.answers) == (True, (False, False), (None, None))
    assert (nothing.is_error, nothing.right, nothing.answers) == (False, (False, False), (None, None))


def test_the_solutions_of_pass_at_k_are_runs_of_one_iteration(tmp_path: Path) -> None:
    def solved(n: int, answer: str, correct: bool, ended: str) -> dict[str, Any]:
        return {"solution_id": n, "reasoning": f"so {answer}", "answer": answer, "correct": correct, "finish_reason": ended}

    record = {
        "problem_id": "1",
        "correct_answer": "7",
        "solutions": [solved(0, "7", True, "stop"), solved(1, "8", False, "length")],
        "pass_at_k": True,
        "consensus_answer": "7",
    }
    chains = read(results(tmp_path / "five", record, BROKEN)).chains
    assert [(chain.run, chain.problem, chain.right, chain.is_error) for chain in chains] == [
        ("five sample 0", "1", (True,), False),
        ("five sample 1", "1", (False,), False),
        ("five sample 0", "8", (False,), True),
        ("five sample 1", "8", (False,), True),
    ]
    assert chains[1].iterations == (Iteration(False, "8", True, "so 8", None, None, None),)
    with pytest.raises(DataError, match=r"record 2, field 'solutions': found \[\] .*a list of at least one solution"):
        read(results(tmp_path / "none", record, {**record, "problem_id": "2", "solutions": []}))


def test_half_a_character_is_read_as_one_that_can_be_written(tmp_path: Path) -> None:
    (chain,) = read(results(tmp_path, {**SEVEN, "iterations": [thought(0, "4\ud800", False)]})).chains
    assert chain.answers == ("4?",)


def test_a_folder_is_read_with_all_its_files(tmp_path: Path) -> None:
    results(tmp_path / "seed0", SEVEN)
    results(tmp_path / "seed1", SEVEN)
    results(tmp_path, SEVEN, name="metrics.json")
    table(tmp_path, HEADER, "7,2025,45,45,1,45,1,seed0,wait,a")
    assert [(chain.method, chain.run) for chain in read(tmp_path).chains] == [
        ("base", "seed0"), ("base", "seed1"), ("wait", "seed0"),
    ]  # fmt: skip


def changed(**changes: Any) -> dict[str, Any]:
    return {key: value for key, value in (SEVEN | changes).items() if value is not ...}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (changed(problem_id=...), ", record 2, field 'problem_id': missing among 'question', 'correct_answer', 'iterations', "
                                  "'detailed_metrics'"),
        (changed(problem_id=None), ", record 2, field 'problem_id': found None (NoneType); allowed: a text or a whole number"),
        (changed(problem_id=2, iterations=[]), ", record 2, field 'iterations': found [] (list); allowed: a list of at least one "
                                               "iteration"),
        (changed(problem_id=2, iterations=[thought(0, "1", False), thought(0, "1", False)]),
         ", record 2, iteration 1, field 'iteration': found 0 (int); allowed: 1: iterations stand in their order, each once"),
        (changed(problem_id=2, iterations=[thought(0, "1", None)]),
         ", record 2, iteration 0, field 'correct': found None (NoneType); allowed: true or false, or 1 or 0"),
        (changed(problem_id=2, iterations=[thought(0, "1", False)]),
         ", record 2: 1 iterations, {path}, record 1 has 2; allowed: equally many in every chain"),
        (SEVEN, ", record 2: problem '7' of method 'base' in run 'run' stands in {path}, record 1 already; allowed: once, with "
                "all its iterations; remove one"),
        (3, ", record 2: found 3 (int); a record is an object with fields such as question and answer"),
    ],
)  # fmt: skip
def test_a_bad_record_is_one_line_with_its_number(record: Any, message: str, tmp_path: Path) -> None:
    path = results(tmp_path / "run", SEVEN, record)
    with pytest.raises(DataError) as error:
        read(path)
    assert str(error.value) == f"{path}{message}".replace("{path}", str(path))


ADVICE = "a results.json is one object with experiment_name and results"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", f": field 'results' is no list of records; {ADVICE}"),
        ('{"results": []}', ": holds no record; at least one is needed"),
        ('{"results": [1]}', ", field 'experiment_name': found None (NoneType); allowed: the name of the method"),
        ("{", f": no valid JSON at column 2 (Expecting property name enclosed in double quotes); {ADVICE}"),
        (json.dumps({"experiment_name": "a", "results": [BROKEN]}),
         ", record 1: every record is an error; at least one needs its iterations"),
    ],
)  # fmt: skip
def test_what_is_no_results_file_is_said_to_be(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(DataError) as error:
        read(tmp_path / "results.json")
    assert str(error.value) == f"{tmp_path}/results.json{message}"


def test_a_path_to_nothing_says_so(tmp_path: Path) -> None:
    allowed = "allowed: a table (.csv), a results.json, a folder of them, or the samples.jsonl of task=summarize"
    (tmp_path / "notes.txt").touch()
    for path, message in (
        (tmp_path / "none.csv", f"no such file or folder; relative paths start at {Path.cwd()}"),
        (tmp_path / "notes.txt", f"found the suffix '.txt'; {allowed}"),
        (tmp_path, f"found nothing that can be read; {allowed}"),
    ):
        with pytest.raises(DataError) as error:
            read(path)
        assert str(error.value) == f"{path}: {message}"
