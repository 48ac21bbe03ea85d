"""Labels of steps judged: what is asked without the label, what is believed, and what a wrong answer fails by first."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from faultserver import FaultServer, answer

from latent_lab.config import ConfigError
from latent_lab.grading.judge import JudgeError
from latent_lab.job import job
from latent_lab.plans.annotation import Unfit
from latent_lab.plans.base import PlanError
from latent_lab.plans.labels import (
    Chain,
    FirstError,
    by_rules,
    compared,
    errors_of,
    read_error,
    read_kinds,
    replied_with,
)

PROBLEMS = [
    {"question": "Can a giraffe use a door?", "answer": "no", "steps": ["[rag]: A giraffe is tall.", "[reason]: So it cannot."]},
    {"question": "Can a mouse use a door?", "answer": "yes", "steps": ["[rag]: A mouse is small.", "[rag]: So it fits."]},
    {"question": "Can a whale use a door?", "answer": "no", "steps": []},
]  # fmt: skip


# What is read


def test_labels_are_read_from_planning_tokens_or_tags() -> None:
    graded = {"question": "?", "gold": "yes", "answer": "no", "correct": False}
    announced = {"plan": ["memory", "assignment", "reason"], "plan_steps": ["A.", "B.", " C."]}
    plain = {"output": "[rag]: A.\nB.\n[Reasoning]: C.\n[hope]: D.\n[rag]:\n### no"}
    chains = replied_with([
        {"id": "a", **graded, **announced},
        {"id": "b", **graded, **plain},
        {"id": "c", **graded, "output": "### no"},
    ])  # fmt: skip
    assert chains == [Chain(i, "?", "yes", ("memory", "reason"), ("A.", "C."), "no", False) for i in ("a", "b")]
    assert chains[0].case.output == "1. A.\n2. C."


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"kinds": ["memory"]}', "1 kinds for 2 steps"),
        ('{"kinds": ["memory", "fact"]}', "a kind 'fact'"),
        ('{"kinds": ["memory", 1]}', "a kind ''"),
        ("memory, reason", "no JSON object with kinds"),
    ],
)
def test_a_kind_is_said_of_every_step(text: str, why: str) -> None:
    assert read_kinds('Here: {"kinds": ["Memory ", "unclear"]}', 2) == ("memory", "unclear")
    with pytest.raises(Unfit, match=f"^{why}$"):
        read_kinds(text, 2)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"step": 3, "kind": "reason"}', "no number of a step"),
        ('{"step": true, "kind": "reason"}', "no number of a step"),
        ('{"step": 1, "kind": "planning"}', "no kind of error"),
        ("{}", "no JSON object with step"),
    ],
)
def test_the_first_error_is_a_step_there_is(text: str, why: str) -> None:
    assert read_error('{"step": 0, "kind": "reason", "reason": "both\\n fit"}', 2) == FirstError(0, "reason", "both fit")
    with pytest.raises(Unfit, match=f"^{why}$"):
        read_error(text, 2)


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        ("Paris is the capital of France.", "memory"),
        ("Sofas are soft.", "memory"),
        ("So it is in France.", "reason"),
        ("2 m < 5 m, hence it is stuck.", "reason"),
        ("<<2+3=5>>", "reason"),
        ("It can be concluded that it fits.", "reason"),
    ],
)
def test_the_rules_know_a_conclusion_by_its_words(step: str, kind: str) -> None:
    assert by_rules(step) == kind


# What it amounts to


def chain(name: str, *labels: str, is_right: bool | None = None) -> Chain:
    return Chain(name, "?", "yes", labels, tuple("x" for _ in labels), is_right=is_right)


def test_labels_are_compared_step_by_step_and_intervals_are_over_chains() -> None:
    chains = [chain("a", "memory", "reason"), chain("b", "memory"), chain("c", "reason", "reason"), chain("d", "memory")]
    found = compared(chains, {"a": ("memory", "reason"), "b": ("reason",), "c": ("reason", "unclear")})  # nothing of d
    assert (found["right"]["value"], found["right"]["steps"], found["right"]["n"]) == (0.6, 5, 3)
    assert (found["right"]["low"], found["right"]["high"]) == (0.0, 1.0)
    assert (found["by_label"]["memory"]["value"], found["by_label"]["memory"]["steps"]) == (0.5, 2)
    assert found["by_label"]["reason"]["value"] == pytest.approx(2 / 3)
    assert found["table"] == {
        "memory": {"memory": 1, "reason": 1, "unclear": 0},
        "reason": {"memory": 0, "reason": 2, "unclear": 1},
    }
    # Agreed 3/5; by chance 2/5 * 1/5 + 3/5 * 3/5 = 11/25.
    assert found["cohen_kappa"]["value"] == pytest.approx((15 - 11) / (25 - 11))
    assert found["constant"] == 0.6


def test_first_errors_are_counted_by_kind_and_by_the_label_of_their_step() -> None:
    chains = [
        chain("a", "memory", "reason", is_right=False),
        chain("b", "memory", "reason", is_right=False),
        chain("c", "memory", is_right=False),
        chain("d", "memory", is_right=True),
        chain("e", "memory", is_right=False),
    ]
    said = {"a": FirstError(1, "memory", ""), "b": FirstError(2, "memory", ""), "c": FirstError(0, "reason", "")}
    found = errors_of(chains, said)
    assert (found["wrong"], found["judged"]) == (4, 3)
    assert {kind: each["count"] for kind, each in found["kinds"].items()} == {"memory": 2, "reason": 1, "unclear": 0}
    assert found["kinds"]["memory"]["n"] == 3
    assert found["by_label"] == {
        "memory": {"memory": 1, "reason": 0, "unclear": 0},
        "reason": {"memory": 1, "reason": 0, "unclear": 0},
        "answer": {"memory": 0, "reason": 1, "unclear": 0},
    }


# The command


def say(body: dict[str, Any]) -> Any:
    """Takes every first step for memory and every other for reason, blames the first; its first reply about the mouse is none."""
    system, user = (message["content"] for message in body["messages"])
    if "Find the first step" in system:
        return answer(json.dumps({"reason": "it is not", "step": 1, "kind": "memory"}))
    if "mouse" in user and body["seed"] == 0:
        return answer("I see two steps.")
    count = user.count("\n1. ") + user.count("\n2. ")
    return answer(json.dumps({"kinds": ["memory", "reason"][:count]}))


def dataset(folder: Path) -> Path:
    path = folder / "tagged.json"
    path.write_text(json.dumps(PROBLEMS))
    return path


def judged(tmp_path: Path, *more: str) -> tuple[dict[str, Any], FaultServer]:
    with FaultServer(say=say).running() as server:
        settings = ["judge=openai", "judge.model=tiny", f"judge.base_url={server.base_url}", "judge.api_key_env=null"]
        asked = job("eval", ["task=labels", *settings, f"out={tmp_path / 'out'}", *more])
        found: dict[str, Any] = asked.config.task.run(asked)
        asked_so_far = len(server.seen)
        assert asked.config.task.run(asked) == found  # what is stored, without another call
        assert len(server.seen) == asked_so_far
    return found, server


def test_the_tags_of_a_dataset_are_judged_by_somebody_who_does_not_see_them(tmp_path: Path) -> None:
    read = ("dataset=file", f"dataset.path={dataset(tmp_path)}")
    found, server = judged(tmp_path, *read)
    prompts = [seen.prompt for seen in server.seen]
    assert len(prompts) == 2 + 1  # the mouse once more
    assert "Problem:\nCan a giraffe use a door?\n\nSteps:\n<steps>\n1. A giraffe is tall.\n2. So it cannot.\n</steps>" in prompts
    assert not any("[rag]" in prompt or "whale" in prompt for prompt in prompts)
    assert (found["chains"], found["unlabelled"], found["unreadable"]) == (2, 1, 0)
    assert (found["labels"]["right"]["value"], found["labels"]["right"]["steps"]) == (0.75, 4)
    assert found["labels"]["table"]["memory"] == {"memory": 2, "reason": 1, "unclear": 0}
    assert found["rules"]["right"]["value"] == 0.75
    assert "errors" not in found
    assert found["calls"]["answered"] == 3
    rows = tiny.rows(tmp_path / "out" / "samples.jsonl")
    assert rows[1]["steps"][1] == {"text": "So it fits.", "label": "memory", "judged": "reason", "rules": "reason"}
    found, _ = judged(tmp_path / "once", *read, "task.tries=1")
    assert (found["unreadable"], found["labels"]["right"]["steps"]) == (1, 2)
    assert tiny.rows(tmp_path / "once" / "out" / "samples.jsonl")[1]["unreadable"] == "no JSON object with kinds"


def test_the_rules_judge_for_nothing(tmp_path: Path) -> None:
    asked = job(
        "eval", ["task=labels", "judge=rules", "dataset=file", f"dataset.path={dataset(tmp_path)}", f"out={tmp_path / 'o'}"]
    )
    found = asked.config.task.run(asked)
    assert (found["judge"], found["labels"]["right"]["value"]) == ("rules", 0.75)
    assert not {"rules", "calls"} & found.keys()


def test_a_run_is_judged_by_what_it_announces_and_where_its_wrong_answers_fail(tmp_path: Path) -> None:
    for split, flip in (("train", False), ("valid", False), ("test", True)):
        rows = [{**p, "answer": "maybe" if flip and "mouse" in p["question"] else p["answer"]} for p in PROBLEMS[:2]]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    read = ("dataset=file", f"dataset.path={tmp_path}", *tiny.MODEL, "device=cpu")
    run = tiny.train(
        tmp_path / "runs",
        "stage=planning",
        "plan=memory_reason",
        "stage.epochs=[150]",
        "eval_every=150",
        "optim.lr=0.01",
        base=read,
    )
    found, server = judged(tmp_path, f"run={run}")
    assert (found["accuracy"]["value"], found["chains"], found["as_gold"]["value"]) == (0.5, 2, 1.0)
    assert found["labels"]["table"]["memory"] == {"memory": 2, "reason": 1, "unclear": 0}
    assert found["errors"]["wrong"] == found["errors"]["judged"] == found["errors"]["by_label"]["memory"]["memory"] == 1
    (asked,) = [seen.prompt for seen in server.seen if "Answer given" in seen.prompt]
    assert asked.startswith(
        "Problem:\nCan a mouse use a door?\n\nCorrect answer: maybe\n\nSteps:\n<steps>\n1. A mouse is small.\n2. "
    )
    assert asked.endswith("\n</steps>\n\nAnswer given: yes")
    _, server = judged(tmp_path / "blind", f"run={run}", "judge.show_gold=false")
    assert not any("Correct answer" in seen.prompt for seen in server.seen)


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    read = ["task=labels", "dataset=file", f"dataset.path={dataset(tmp_path)}", f"out={tmp_path / 'out'}"]
    with pytest.raises(ConfigError, match=r"^judge: given nothing; this task has steps judged; allowed: rules, openai, local$"):
        job("eval", read)
    for setting in ("task.tries=0", "task.prompt=v0", "task.error_prompt=v0"):
        with pytest.raises(ConfigError, match=rf"^{setting.split('=')[0]}: given"):
            job("eval", [*read, "judge=rules", setting])
    (tmp_path / "mine.txt").write_text("[system]\nHello.\n[user]\n{question}")
    with pytest.raises(ConfigError, match=r"it has no \{output\}; allowed: files with \{question\} and \{output\}"):
        job("eval", [*read, "judge=rules", f"task.prompt={tmp_path / 'mine.txt'}"])
    server = ["judge=openai", "judge.model=m", "judge.api_key_env=null", "judge.base_url=http://127.0.0.1:9/v1"]
    asked = job("eval", [*read, *server, "judge.votes=2", "judge.temperature=1"])
    with pytest.raises(ConfigError, match=r"^judge: given m #1, m #2; one model judges labels; allowed: votes=1"):
        asked.config.task.run(asked)
    asked = job("eval", [*read, *server, "judge.max_attempts=1"])
    with pytest.raises(JudgeError, match=r"^judge: 2 of 2 questions have no reply"):
        asked.config.task.run(asked)
    run = tiny.train(tmp_path, "stage=cot", "max_steps=1")
    asked = job("eval", ["task=labels", "judge=rules", f"run={run}", "device=cpu"])
    with pytest.raises(PlanError, match=r"no step is labelled as memory or reason; allowed: runs of stage=planning"):
        asked.config.task.run(asked)
