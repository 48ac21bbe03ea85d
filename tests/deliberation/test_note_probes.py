"""What a note holds, worked out by hand; and that rows, published results and the page tell of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from faultserver import FaultServer, answer

from latent_lab.deliberation.chains import Chain, Iteration
from latent_lab.deliberation.forms import read
from latent_lab.deliberation.probes import COLUMNS, probed, probes
from latent_lab.grading.answers import Grading
from latent_lab.job import job


def test_a_note_may_hold_the_gold_answer_and_answer_otherwise() -> None:
    grading = Grading(("boxed",))
    assert probed("First 7, then \\boxed{8}.", "7", grading) == dict(zip(COLUMNS, ("8", False, True), strict=True))
    assert probed("Try again.", "7", grading) == dict(zip(COLUMNS, (None, False, False), strict=True))
    assert probed(None, "7", grading) == dict.fromkeys(COLUMNS)  # vectors were handed on


def test_shares_of_notes_are_resampled_by_problem() -> None:
    def chain(problem: str, before: str, note: str | None, after: str) -> Chain:
        first = Iteration(before == "7", before, summary_answer=note, is_summary_right=note == "7", is_gold_in_summary=True)
        return Chain("m", "r", problem, (first, Iteration(after == "7", after)), "here", gold="7")

    chains = [chain("a", "7", "7", "07"), chain("b", "6", "6", "7"), chain("c", "6", "7", "7"), chain("d", "6", None, "6")]
    found = probes(chains, 0, 0)
    assert found is not None
    assert {name: share["value"] for name, share in found.items() if name != "notes"} == {
        "answer": 0.75, "right": 0.5, "gold": 1.0, "kept": pytest.approx(2 / 3), "followed": pytest.approx(2 / 3),
    }  # fmt: skip
    assert (found["notes"], found["right"]["n"], found["followed"]["n"]) == (4, 4, 3)
    assert probes(chains, 1, 0) is None  # nothing is handed on after the last


def test_published_results_tell_what_was_read_from_summaries(tmp_path: Path) -> None:
    def thought(k: int, **more: Any) -> dict[str, Any]:
        return {"iteration": k, "reasoning": "r", "answer": "7", "correct": True, "finish_reason": "stop", **more}

    rows = [
        thought(0, summary="It may be 7 or 8.", summary_answer=8, summary_correct=False),
        thought(1, summary="No idea.", summary_answer=None, summary_correct=False),
        thought(2, summary="Not looked at."),
        thought(3),
    ]
    record = {"problem_id": "1", "correct_answer": "7", "iterations": rows}
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"experiment_name": "base", "results": [record]}))
    (chain,) = read(path).chains
    assert [(each.summary_answer, each.is_summary_right, each.is_gold_in_summary) for each in chain.iterations] == [
        ("8", False, True), (None, False, False), (None, None, None), (None, None, None),
    ]  # fmt: skip


def test_rows_result_and_page_tell_of_every_note(tmp_path: Path) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_text('{"id": "a", "question": "What is 1+1?", "answer": "2"}\n')
    with FaultServer(say=lambda body: answer("So 2.</think>It is \\boxed{3}.")).running() as server:
        backend = ["backend=openai", "backend.model=m", f"backend.base_url={server.base_url}", "backend.api_key_env=null"]
        small = ["task.chains=1", "task.samples=1", "task.iterations=1", "task.methods=[post_think,first_k]"]
        dataset = ["dataset=file", f"dataset.path={path}"]
        asked = job("eval", ["task=summarize", *backend, *small, *dataset, f"out={tmp_path / 'out'}"])
        result = asked.config.task.run(asked)
    rows = [json.loads(line) for line in (tmp_path / "out/samples.jsonl").read_text().splitlines()]
    told = {(row["method"], row["iteration"]): [row[name] for name in COLUMNS] for row in rows}
    assert told == {
        ("post_think", 0): ["3", False, False], ("post_think", 1): [None] * 3,
        ("first_k", 0): [None, False, True], ("first_k", 1): [None] * 3, ("samples", 0): [None] * 3,
    }  # fmt: skip
    notes = result["methods"]["post_think"]["iterations"][0]["notes"]
    assert {name: share["value"] for name, share in notes.items() if name != "notes"} == {
        "answer": 1.0, "right": 0.0, "gold": 0.0, "kept": 1.0, "followed": 1.0,
    }  # fmt: skip
    again = read(tmp_path / "out/samples.jsonl").methods["post_think"][0].iterations[0]
    assert (again.summary_answer, again.is_summary_right, again.is_gold_in_summary) == ("3", False, False)
    page = (tmp_path / "out/report.html").read_text()
    assert '<h2 id="notes">What notes hold</h2>' in page
    assert "Followed: of answers found, those that the attempt after the note gives." in page
