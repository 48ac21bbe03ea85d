"""Behaviours said by a model beside those counted by rules: what is asked, what is believed, and that nothing is paid twice."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from faultserver import FaultServer, answer

from latent_lab.config import ConfigError
from latent_lab.deliberation import behaviour_judge
from latent_lab.grading.agreement import cohen_kappa
from latent_lab.grading.judge import JudgeError
from latent_lab.job import Job, job


def test_sentences_are_asked_for_by_number_in_parts_of_thirty() -> None:
    parts = behaviour_judge.parts_of([f"S{i}." for i in range(61)])
    assert list(map(len, parts)) == [30, 30, 1]
    assert behaviour_judge.numbered(["So it\tis.", "x" * 2_000]) == f"1. So it is.\n2. {'x' * 1_000}"


@pytest.mark.parametrize(
    ("reply", "labels"),
    [
        ('{"1": "deduction", "2": "backtracking"}', ["deduction", "backtracking"]),
        ('Say {"1": "other"}.\n{"1": "Example-Testing", "2": "other"} Done {"a": 1}', ["example_testing", "other"]),
        ('{"2": "other", "3": "deduction"}', [None, "other"]),
        ('{"1": "planning", "2": 7}', [None, None]),
        ("I cannot say.", [None, None]),
    ],
)  # fmt: skip
def test_the_last_object_that_names_a_behaviour_counts(reply: str, labels: list[str | None]) -> None:
    assert behaviour_judge.read_labels(reply, 2) == labels


def test_kappa_resamples_problems_where_sentences_belong_to_them() -> None:
    first, second = list("aabb" * 6), list("aabbabab" * 3)
    alone, together = cohen_kappa(first, second), cohen_kappa(first, second, clusters=["p"] * 8 + ["q"] * 16)
    assert (alone.value, together.value) == (0.5, 0.5)  # 18 of 24 agree, and by chance half would
    assert (alone.n, together.n) == (24, 2)
    assert (together.low, together.high) == (0.5, 0.5)  # each problem alone has it, so every draw of problems does


# The command


def say(body: dict[str, Any]) -> Any:
    """Labels sentences with ``2`` as deduction and others as uncertainty; a sentence that says Hush gets none."""
    said = body["messages"][-1]["content"].rpartition("Sentences:\n")[2]
    found = re.findall(r"^(\d+)\. (.*)$", said, flags=re.MULTILINE)
    return answer(json.dumps({n: "deduction" if "2" in text else "uncertainty" for n, text in found if text != "Hush."}))


def published(folder: Path) -> Path:
    """Two problems, of which the first has two iterations alike."""
    thought = {"reasoning": "Maybe. So it is 2.", "answer": "2", "correct": True, "finish_reason": "stop"}
    other = {"reasoning": "Hush. Hmm.", "answer": "2", "correct": True, "finish_reason": "stop"}
    records = [
        {"problem_id": "a", "correct_answer": "2", "iterations": [{**thought, "summary": "So 3."}, thought]},
        {"problem_id": "b", "correct_answer": "2", "iterations": [other, other]},
    ]
    path = folder / "results.json"
    path.write_text(json.dumps({"experiment_name": "base", "results": records}))
    return path


def overrides(tmp_path: Path, base_url: str, *more: str) -> list[str]:
    return [
        "task=iterations", f"path={published(tmp_path)}", "judge=openai", "judge.model=tiny", f"judge.base_url={base_url}",
        "judge.api_key_env=null", f"out={tmp_path / 'out'}", *more,
    ]  # fmt: skip


def run(asked: Job) -> dict[str, Any]:
    returned: dict[str, Any] = asked.config.task.run(asked)
    return returned


def test_a_judge_labels_each_text_once_beside_the_rules(tmp_path: Path) -> None:
    with FaultServer(say=say).running() as server:
        result = run(job("eval", overrides(tmp_path, server.base_url)))
    first, second = result["methods"]["base"]["iterations"]
    shares = first["behaviours_judged"]["reasoning"]["shares"]
    assert {name: share["count"] for name, share in shares.items() if share["count"]} == {"uncertainty": 2, "deduction": 1}
    assert first["behaviours_judged"]["reasoning"]["sentences_per_text"] == 1.5  # of two each, one has no label
    assert first["behaviours_judged"]["summary"]["shares"]["uncertainty"]["value"] == 1.0
    assert second["behaviours_judged"]["reasoning"] == first["behaviours_judged"]["reasoning"]
    about = result["behaviours_judge"]
    assert (about["name"], about["texts"], len(server.seen)) == ("tiny", 3, 3)
    assert (about["unreadable"]["value"], about["unreadable"]["n"]) == (0.2, 5)
    # Of four labels three are the rules'; by chance (3 * 2 + 1 * 2) of 16 would be.
    assert (about["kappa_with_rules"]["value"], about["kappa_with_rules"]["n"]) == (0.5, 2)
    assert about["calls"]["calls"] == 3
    rows = [json.loads(line) for line in (tmp_path / "out/behaviours/labels.jsonl").read_text().splitlines()]
    assert {"problem": "b", "sentences": ["Hush.", "Hmm."], "labels": [None, "uncertainty"]} in rows
    page = (tmp_path / "out/report.html").read_text()
    assert "base: what texts are made of, as a judge reads them" in page
    assert "to which tiny gave a label; over all texts, 20.0 [" in page
    assert "(kappa): 0.50 [" in page


def test_what_was_answered_is_not_asked_again_after_a_reply_that_never_came(tmp_path: Path) -> None:
    is_well = False

    def sometimes(body: dict[str, Any]) -> Any:
        return say(body) if is_well or "Hush" not in str(body) else {"choices": []}

    with FaultServer(say=sometimes).running() as server:
        asked = job("eval", overrides(tmp_path, server.base_url, "judge.max_attempts=1"))
        with pytest.raises(JudgeError, match=r"^judge: 1 of 3 questions have no reply"):
            run(asked)
        is_well = True
        calls = run(asked)["behaviours_judge"]["calls"]
    assert (len(server.seen), calls["calls"], calls["answered"], calls["failed"]) == (4, 4, 3, 1)


def test_too_few_replies_are_no_result(tmp_path: Path) -> None:
    with FaultServer(say=lambda body: {"choices": []}).running() as server:
        asked = job("eval", overrides(tmp_path, server.base_url, "judge.max_attempts=1"))
        with pytest.raises(JudgeError, match=r"^judge: 3 of 3 questions have no reply, more than judge.max_errors=0.1 allows"):
            run(asked)
    assert not (tmp_path / "out/result.json").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["judge=rules"], "judge: given Rules; the rules always count here; allowed: none, openai, local"),
        (["judge=openai", "judge.model=m", "judge.votes=2", "judge.temperature=1"],
         "judge: given m #1, m #2; one model counts behaviours; allowed: votes=1, and no more_models"),
        (["judge=openai", "judge.model=m", "judge.prompt=PROMPT"],
         "judge.prompt: given PROMPT; behaviours have a prompt of their own; allowed: v1"),
    ],
)  # fmt: skip
def test_a_judge_that_cannot_label_is_refused_before_a_folder_is_made(more: list[str], message: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("[system]\nJudge.\n[user]\n{question} {output} {gold}")
    more = [each.replace("PROMPT", str(mine)) for each in more]
    with pytest.raises(ConfigError) as error:
        run(job("eval", ["task=iterations", f"path={published(tmp_path)}", f"out={tmp_path / 'out'}", *more]))
    assert str(error.value) == message.replace("PROMPT", str(mine))
    assert not (tmp_path / "out").exists()


def test_where_a_model_thinks_the_judge_pays_for_itself_and_alone(tmp_path: Path) -> None:
    def both(body: dict[str, Any]) -> Any:
        return say(body) if body["model"] == "tiny" else answer("So 2.</think>It is \\boxed{2}.")

    path = tmp_path / "problems.jsonl"
    path.write_text('{"id": "a", "question": "What is 1+1?", "answer": "2"}\n')
    with FaultServer(say=both).running() as server:
        who = [f"{group}.{key}" for group in ("backend", "judge") for key in (f"base_url={server.base_url}", "api_key_env=null")]
        small = ["task.chains=1", "task.samples=1", "task.iterations=1", "task.methods=[answer_only]"]
        asked = ["task=summarize", "backend=openai", "backend.model=thinker", "judge=openai", "judge.model=tiny"]
        dataset = ["dataset=file", f"dataset.path={path}"]
        result = run(job("eval", [*asked, *who, *small, *dataset, f"out={tmp_path / 'out'}"]))
    first, second = result["methods"]["answer_only"]["iterations"]
    assert first["behaviours_judged"]["reasoning"]["shares"]["deduction"]["value"] == 1.0
    assert ("summary" in first["behaviours_judged"], "summary" in second["behaviours_judged"]) == (True, False)
    assert (result["calls"]["calls"], result["behaviours_judge"]["calls"]["calls"]) == (2, 2)  # two attempts; a trace and a note
