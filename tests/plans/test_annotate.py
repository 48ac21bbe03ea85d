"""Steps of memory and reason written by a model: what it is asked, what is believed, and that nothing is paid twice."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import chatmodel
import pytest
import tiny
from faultserver import FaultServer, answer

from latent_lab.config import ConfigError
from latent_lab.job import job
from latent_lab.plans import annotation
from latent_lab.plans.annotate import Annotator
from latent_lab.plans.annotate_task import AnnotateTask
from latent_lab.plans.annotation import Step, Unfit
from latent_lab.problems import Problem

REPOSITORY = Path(__file__).resolve().parents[2]
OUTLINE = (Step("rag", "How tall is a giraffe?"), Step("reason", "compare"), Step("rag", "How tall is a door?"))
PROBLEMS = [
    {"question": "Can a giraffe use a door?", "answer": "False"},
    {"question": "Can a mouse use a door?", "answer": "True"},
    {"question": "Can a whale use a door?", "answer": "False"},
]


# What is asked and read


def test_an_outline_has_steps_of_both_kinds_in_the_order_asked_for() -> None:
    steps = [{"kind": step.kind, "text": step.text} for step in OUTLINE]
    text = f"Sure! {{1}} {json.dumps({'steps': steps})} Done."
    assert annotation.read_outline(text, "as_needed") == OUTLINE
    for wrong, order, why in (
        (text, "memory_first", "a step of the kind rag after one of the kind reason"),
        (json.dumps({"steps": steps[:1]}), "as_needed", "no step of the kind reason"),
        (json.dumps({"steps": steps[1:2]}), "as_needed", "no step of the kind rag"),
        (json.dumps({"steps": [*steps, {"kind": "guess", "text": "x"}]}), "as_needed", "a step has no kind"),
        (json.dumps({"steps": [*steps, {"kind": "rag", "text": " \n"}]}), "as_needed", "an empty text"),
        (json.dumps({"steps": "rag"}), "as_needed", "steps is no list"),
        ("I would rather not.", "as_needed", "no JSON object with steps"),
    ):
        with pytest.raises(Unfit, match=why):
            annotation.read_outline(wrong, order)


def test_facts_stand_in_the_chain_word_for_word() -> None:
    known = annotation.read_facts('{"facts": ["A giraffe is 5 m\\ntall.", "[rag]: A door is 2 m tall."]}', OUTLINE)
    assert known == (Step("rag", "A giraffe is 5 m tall."), Step("reason", "compare"), Step("rag", "A door is 2 m tall."))
    chain, said = annotation.read_chain('{"reasons": ["5 m is more than 2 m."], "answer": false}', known)
    assert [annotation.tagged(step) for step in chain] == [
        "[rag]: A giraffe is 5 m tall.", "[reason]: 5 m is more than 2 m.", "[rag]: A door is 2 m tall.",
    ]  # fmt: skip
    assert said == "False"
    with pytest.raises(Unfit, match=r"^1 texts for 2 steps of the kind rag$"):
        annotation.read_facts('{"facts": ["one"]}', OUTLINE)


def test_facts_are_asked_for_without_the_problem() -> None:
    assert annotation.ask_facts(OUTLINE)[1]["content"] == "1. How tall is a giraffe?\n2. How tall is a door?"


# The command


def say(body: dict[str, Any]) -> Any:
    """Knows animals; its first outline for the whale is of one kind, and its chain about the mouse leads nowhere."""
    system, user = (message["content"] for message in body["messages"])
    animal = next(name for name in ("giraffe", "mouse", "whale") if name in user)
    if system.startswith("You plan"):
        steps = [{"kind": "rag", "text": f"How tall is a {animal}?"}, {"kind": "reason", "text": "compare with a door"}]
        found: Any = {"steps": steps[: 1 if animal == "whale" and body["seed"] == 0 else 2]}
    elif system.startswith("You are asked for facts"):
        found = {"facts": [f"A {animal} has its height."]}
    elif system.startswith("You carry"):
        found = {"reasons": ["So it follows."], "answer": "True" if animal == "mouse" else "false"}
    else:
        found = {"answer": "unclear" if animal == "mouse" else "False"}
    return answer(json.dumps(found))


def dataset(folder: Path) -> Path:
    path = folder / "asked.json"
    path.write_text(json.dumps([{**p, "steps": []} for p in PROBLEMS]))
    return path


def overrides(tmp_path: Path, base_url: str, *more: str) -> list[str]:
    return [
        "task=annotate", "dataset=file", f"dataset.path={dataset(tmp_path)}", "judge=openai", "judge.model=tiny",
        f"judge.base_url={base_url}", "judge.api_key_env=null", f"out={tmp_path / 'out'}", *more,
    ]  # fmt: skip


def annotated(tmp_path: Path, *more: str) -> tuple[dict[str, Any], FaultServer]:
    with FaultServer(say=say).running() as server:
        asked = job("eval", overrides(tmp_path, server.base_url, *more))
        found: dict[str, Any] = asked.config.task.run(asked)
    return found, server


def test_chains_are_written_from_facts_checked_without_the_answer_and_can_be_trained_on(tmp_path: Path) -> None:
    found, server = annotated(tmp_path, "task.choices=['True','False']")
    assert (found["kept"]["count"], found["kept"]["n"]) == (2, 3)
    assert found["left_out"] == {"unfit": 0, "contradicting": 1}
    assert found["steps"] == {"rag": 2, "reason": 2}
    assert (found["calls"]["calls"], found["calls"]["failed"]) == (3 + 1 + 3 + 3 + 3, 0)
    whale = [seen for seen in server.seen if "whale" in seen.prompt]
    outline, again, facts, chain, check = (seen.prompt for seen in whale)
    assert (
        outline == again == ("Problem:\nCan a whale use a door?\n\nThe answer is one of: True, False.\n\nCorrect answer: False")
    )
    assert facts == "1. How tall is a whale?"
    assert "1. [rag]: A whale has its height.\n2. [reason]: compare with a door" in chain
    assert "Correct answer" not in check
    assert "1. A whale has its height.\n2. So it follows." in check
    made = tiny.rows(tmp_path / "out" / "problems.jsonl")
    assert [row["steps"] for row in made] == [
        ["[rag]: A giraffe has its height.", "[reason]: So it follows."],
        ["[rag]: A whale has its height.", "[reason]: So it follows."],
    ]
    assert [row["answer"] for row in made] == ["False", "False"]
    assert [row["status"] for row in tiny.rows(tmp_path / "out" / "samples.jsonl")] == ["kept", "contradicting", "kept"]
    for split in ("train", "valid"):
        shutil.copy(tmp_path / "out" / "problems.jsonl", tmp_path / f"{split}.jsonl")
    read = ("dataset=file", f"dataset.path={tmp_path}", *tiny.MODEL, "device=cpu")
    run = tiny.train(tmp_path / "runs", "stage=planning", "plan=memory_reason", "max_steps=1", base=read)
    assert {row["plan_gold"][0] for row in tiny.rows(run / "samples.jsonl")} == {"memory"}


@pytest.mark.parametrize(
    ("answer", "gold", "rule", "status"),
    [
        ("18 dollars", "18", "exact", "kept"),
        ("$18", "18", "exact", "kept"),
        ("19", "18", "exact", "contradicting"),
        ("(B) a bank", "B", "choice", "kept"),
        ("(C) a mall", "B", "choice", "contradicting"),
        ("yes", "True", "yes_no", "kept"),
        ("unclear", "True", "yes_no", "contradicting"),
    ],
)
def test_where_a_chain_leads_is_compared_by_the_datasets_rule(answer: str, gold: str, rule: str, status: str) -> None:
    made = Annotator(AnnotateTask(), None, None, [Problem("p", "?", (), gold)], rule)  # type: ignore[arg-type]
    made.chains, made.answers = {"p": (Step("reason", "So."),)}, {"p": answer}
    assert made.rows()[0]["status"] == status


def test_without_the_gold_answer_nobody_is_shown_it(tmp_path: Path) -> None:
    found, server = annotated(tmp_path, "judge.show_gold=false", "task.tries=1")
    assert not any("Correct answer" in seen.prompt for seen in server.seen)
    assert len(server.seen) == 3 + 2 + 2  # outlines, one of them unfit; facts; chains, whose own answers count
    assert found["kept"]["count"] == 2
    assert found["reasons"] == {"no step of the kind reason": 1}
    rows = tiny.rows(tmp_path / "out" / "samples.jsonl")
    assert [(row["status"], row["answer"]) for row in rows] == [("kept", "false"), ("kept", "True"), ("unfit", None)]


def test_all_facts_may_be_wanted_first(tmp_path: Path) -> None:
    _, server = annotated(tmp_path, "task.order=memory_first")
    outlines = [seen.body["messages"][0]["content"] for seen in server.seen if "You plan" in seen.body["messages"][0]["content"]]
    assert all("put all steps of the kind rag before all of the kind reason" in system for system in outlines)


def test_killed_and_repeated_it_pays_for_no_answer_twice(tmp_path: Path) -> None:
    with FaultServer(say=say).running() as server:
        server.wait = 0.1
        asked = overrides(tmp_path, server.base_url, "judge.max_in_flight=1")
        command = [sys.executable, "-m", "latent_lab.eval", *asked]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}

        def start() -> subprocess.Popen[str]:
            return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

        killed = start()
        while len(server.seen) < 6 and killed.poll() is None:
            time.sleep(0.005)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        assert killed.returncode == -signal.SIGKILL
        assert not (tmp_path / "out" / "problems.jsonl").exists()
        assert len(tiny.rows(tmp_path / "out" / "calls.jsonl")) >= 5
        server.wait = 0.0
        for _ in range(2):  # the second finds the result
            ended = start()
            _, log = ended.communicate(timeout=120)
            assert ended.returncode == 0, log
        assert "2 of 3 problems have a chain; 1 contradicting" in log
    assert len(server.seen) <= 13 + 1  # what was under way when it was killed
    keys = Counter(row["key_sha256"] for row in tiny.rows(tmp_path / "out" / "calls.jsonl"))
    assert (len(keys), set(keys.values())) == (13, {1})


def test_a_model_in_this_process_writes_them_too(tmp_path: Path) -> None:
    everything = {"steps": [{"kind": "rag", "text": "a"}, {"kind": "reason", "text": "b"}], "facts": ["A door is tall."]}
    said = json.dumps({**everything, "reasons": ["So no."], "answer": "False"})
    # One object holds the fields of all four rounds, as the model can say one thing only.
    model = chatmodel.save_chat_model(tmp_path / "chat", (said,))
    settings = ["judge=local", f"judge.path={model}", "device=cpu"]
    asked = job("eval", [*overrides(tmp_path, "http://none")[:3], *settings, f"out={tmp_path / 'out'}"])
    found = asked.config.task.run(asked)
    assert (found["kept"]["count"], "calls" in found) == (2, False)


def test_what_cannot_be_is_said_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="judge: given Rules; this task has a language model write; allowed: openai, local"):
        job("eval", ["task=annotate", "dataset=file", f"dataset.path={dataset(tmp_path)}", "judge=rules"])
    asked = job("eval", overrides(tmp_path, "http://none", "judge.votes=2", "judge.temperature=1"))
    with pytest.raises(ConfigError, match="judge: given tiny #1, tiny #2; one model writes"):
        asked.config.task.run(asked)
    for setting in ("task.order=random", "task.tries=0"):
        with pytest.raises(ConfigError, match="allowed"):
            job("eval", overrides(tmp_path, "http://none", setting))


def test_the_problems_may_be_those_of_a_run(tmp_path: Path) -> None:
    base = ("dataset=file", f"dataset.path={dataset(tmp_path)}", *tiny.MODEL, "stage=no_cot", "device=cpu")
    run = tiny.train(tmp_path, "max_steps=1", base=base)
    with FaultServer(say=say).running() as server:
        asked = job("eval", [f"run={run}", *(o for o in overrides(tmp_path, server.base_url) if not o.startswith("dataset"))])
        assert asked.config.task.run(asked)["kept"]["n"] == 3


def test_a_writer_that_is_not_there_is_said_to_be_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from latent_lab.grading.judge import JudgeError

    asked = job("eval", overrides(tmp_path, "http://127.0.0.1:9/v1", "judge.max_attempts=2", "judge.max_wait_s=0.1"))
    with pytest.raises(JudgeError) as error:
        asked.config.task.run(asked)
    assert "\n" not in str(error.value)
    (said,) = [record.message for record in caplog.records if record.name == "latent_lab.calls.client"]  # of three questions
    assert said.startswith("http://127.0.0.1:9/v1: no connection: ")
    assert said.endswith("; call 1 of at most 2 for a reply, the next in 0.1 s")


def test_a_writer_that_is_not_there_leaves_no_result(tmp_path: Path) -> None:
    from latent_lab.grading.judge import JudgeError

    asked = job("eval", overrides(tmp_path, "http://127.0.0.1:9/v1", "judge.max_attempts=1"))
    with pytest.raises(JudgeError, match=r"judge: 3 of 3 questions have no reply, more than judge\.max_errors=0\.1 allows"):
        asked.config.task.run(asked)
    assert not (tmp_path / "out" / "result.json").exists()
