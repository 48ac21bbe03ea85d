"""Deliberating as a user does it: watched by a server, killed twice and repeated, and against the server of transformers."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chatmodel import save_chat_model, save_rambling_model
from faultserver import FaultServer
from serving import environment, transformers_serve
from tiny import result, rows

from latent_lab.deliberation.settings import LATENT, METHODS

pytest.importorskip("openai", reason="the extra api is not installed")

IN_FLIGHT = 8
OF_SERVERS = [method for method in METHODS if method not in LATENT]
AIME_ROWS = int(os.environ.get("AIME_ROWS", "3"))
"""Problems of the longest test, of 60; each takes about six seconds of one core."""
PATIENCE_S = 300 + 20 * AIME_ROWS
WRITES_NOTES = ("Summarise", "Tell this", "State in", "This is a part", "Notes are kept")


def reply(body: dict[str, Any]) -> Any:
    """An attempt whose answer, and whether it is cut off, depend on what is asked and on its seed; or notes on one."""
    prompt = body["prompt"]
    usage = {"prompt_tokens": len(prompt), "completion_tokens": 9}
    if prompt.startswith(WRITES_NOTES):
        return {"choices": [{"text": f"It reached {len(prompt) % 7}.", "finish_reason": "stop"}], "usage": usage}
    drawn = len(prompt) + body["seed"]
    text = f" thinking it over</think>\\boxed{{{drawn % 3 + 5}}}" if drawn % 4 else " thinking it ov"
    return {"choices": [{"text": text, "finish_reason": "stop" if drawn % 4 else "length"}], "usage": usage}


def command(base_url: str, folder: Path, *overrides: str) -> list[str]:
    server = [
        "backend=openai",
        "backend.api=completions",
        "backend.model=tiny",
        f"backend.base_url={base_url}",
        "backend.api_key_env=null",
    ]
    small = ["task.iterations=2", "task.chains=2", "task.samples=3", f"backend.max_in_flight={IN_FLIGHT}"]
    dataset = ["dataset=file", f"dataset.path={folder.parent / 'problems.jsonl'}"]
    asked = ["task=summarize", "task.k=1", "task.chunk=2", *server, *small, *dataset, f"out={folder}", *overrides]
    return [sys.executable, "-m", "latent_lab.eval", *asked]


def start(words: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(words, env=environment(), stderr=subprocess.PIPE, text=True)


def end(process: "subprocess.Popen[str]", timeout: int = 300) -> str:
    _, log = process.communicate(timeout=timeout)
    assert process.returncode == 0, log
    return log


def kill_when(process: "subprocess.Popen[str]", num_seen: Callable[[], int], asked: int) -> None:
    while num_seen() < asked and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def timeless(folder: Path) -> dict[str, Any]:
    return {key: value for key, value in result(folder).items() if key != "seconds"}


@pytest.mark.parametrize("methods", [["whole", "wait"], pytest.param(OF_SERVERS, marks=pytest.mark.slow)], ids=["two", "all"])
def test_killed_twice_with_eight_calls_in_flight_it_ends_as_if_it_had_not_been(tmp_path: Path, methods: list[str]) -> None:
    thinking = f"task.methods=[{','.join(methods)}]"
    problems = [{"id": f"p{n}", "question": f"What is {'1+' * n}6?", "answer": str(6 + n % 2)} for n in range(3)]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(each) + "\n" for each in problems))
    with FaultServer(say=reply).running() as faults:
        end(start(command(faults.base_url, tmp_path / "unbroken", thinking)))
        asked = len(faults.seen)
        assert asked == len(rows(tmp_path / "unbroken" / "calls.jsonl"))

        faults.seen.clear()
        faults.wait = 0.15
        for share in (3, 2):
            kill_when(start(command(faults.base_url, tmp_path / "killed", thinking)), lambda: len(faults.seen), asked // share)
            assert not (tmp_path / "killed" / "result.json").exists()
        faults.wait = 0.0
        end(start(command(faults.base_url, tmp_path / "killed", thinking)))
        assert 1 < faults.most_in_flight <= IN_FLIGHT  # how many meet there depends on the machine's other work

        # What was under way when it was killed, eight calls at most each time, is all that can be made twice.
        assert asked <= len(faults.seen) <= asked + 2 * IN_FLIGHT
        again = len(faults.seen)
        log = end(start(command(faults.base_url, tmp_path / "killed", thinking)))
        assert len(faults.seen) == again
    assert "is complete; its stored result is used" in log
    keys = Counter(row["key_sha256"] for row in rows(tmp_path / "killed" / "calls.jsonl"))
    assert (len(keys), set(keys.values())) == (asked, {1})  # no answered call was made again
    assert (tmp_path / "killed" / "samples.jsonl").read_bytes() == (tmp_path / "unbroken" / "samples.jsonl").read_bytes()
    assert timeless(tmp_path / "killed") == timeless(tmp_path / "unbroken")
    assert set(timeless(tmp_path / "killed")["methods"]) == set(methods)


@pytest.mark.slow
def test_a_real_server_deliberates(tmp_path: Path) -> None:
    """The server of transformers with a model that boxes one of two answers; the same model in this process does as well."""
    model = save_chat_model(tmp_path / "model", ("ok</think>\\boxed{7}", "ok</think>\\boxed{8}"))
    (tmp_path / "problems.jsonl").write_text(json.dumps({"question": "3+4?", "answer": "7"}) + "\n")
    with transformers_serve(model, tmp_path / "log") as base_url:
        settings = [
            "backend.api=chat",
            "task.methods=[whole,answer_only]",
            f"backend.model={model}",
            "backend.max_tokens=4",
            "task.summary_tokens=4",
            "backend.temperature=1",
        ]
        end(start(command(base_url, tmp_path / "served", *settings)))
    served = rows(tmp_path / "served" / "calls.jsonl")
    assert {row["error"] for row in served} == {None}
    assert {row["finish_reason"] for row in served} == {"stop"}
    assert {row["answer"] for row in rows(tmp_path / "served" / "samples.jsonl")} <= {"7", "8"}
    local = command("x", tmp_path / "here")
    local = [word for word in local if not word.startswith(("backend", "task.methods"))]
    chosen = ["backend=local", f"backend.path={model}", "backend.max_tokens=4", "backend.temperature=1", "device=cpu"]
    end(start([*local, *chosen, "task.summary_tokens=4"]))
    assert {row["answer"] for row in rows(tmp_path / "here" / "samples.jsonl")} == {"7", "8"}
    assert result(tmp_path / "here")["calls"]["cost_usd"] == 0.0


@pytest.mark.slow
@pytest.mark.timeout(3 * PATIENCE_S)
def test_all_strategies_on_aime_killed_twice_against_a_real_server_end_as_if_they_had_not_been(
    data_folder: Path, tmp_path: Path
) -> None:
    """The server has one seed for all that it answers at once, so its model is greedy: what is asked decides what is said."""
    model = save_rambling_model(tmp_path / "model", (" \\boxed{33}", " \\boxed{23}", " \\boxed{116}"))
    asked_for = [
        "dataset=file",
        f"dataset.path={data_folder / 'aime' / 'aime_2024_2025.csv'}",
        "dataset.id=id",
        f"task.problems={AIME_ROWS}",
        "task.chains=1",
        "task.samples=2",
        f"task.methods=[{','.join(OF_SERVERS)}]",
        "task.chunk=4",
        "task.k=3",
        "task.step_tokens=8",
        "task.summary_tokens=6",
        "backend.max_tokens=6",
        f"backend.model={model}",
        f"backend.tokenizer={model}",
    ]
    with transformers_serve(model, tmp_path / "log") as base_url:

        def running(name: str) -> "subprocess.Popen[str]":
            return start(command(base_url, tmp_path / name, *asked_for))

        def num_rows(name: str) -> int:
            ledger = tmp_path / name / "calls.jsonl"
            return ledger.read_bytes().count(b"\n") if ledger.exists() else 0

        def num_heard() -> int:
            return (tmp_path / "log").read_text().count("[Request received]")

        end(running("unbroken"), PATIENCE_S)
        asked, heard = num_rows("unbroken"), num_heard()
        assert heard == asked
        for share in (3, 2):
            before = num_rows("killed")
            kill_when(running("killed"), lambda: num_rows("killed"), asked // share)
            assert before < num_rows("killed") < asked
            assert not (tmp_path / "killed" / "result.json").exists()
        kept = (tmp_path / "killed" / "calls.jsonl").read_bytes()
        end(running("killed"), PATIENCE_S)
        heard = num_heard() - heard
    whole = kept[: kept.rfind(b"\n") + 1]
    assert (tmp_path / "killed" / "calls.jsonl").read_bytes().startswith(whole)
    ledgers = {name: rows(tmp_path / name / "calls.jsonl") for name in ("unbroken", "killed")}
    keys = {name: Counter(row["key_sha256"] for row in ledger) for name, ledger in ledgers.items()}
    assert set(keys["killed"].values()) == {1}  # no answered call was made again
    assert keys["killed"] == keys["unbroken"]
    assert asked <= heard <= asked + 2 * IN_FLIGHT  # what was under way when it was killed is all that is asked twice
    assert {row["error"] for row in ledgers["killed"]} == {None}
    assert {row["finish_reason"] for row in ledgers["killed"]} == {"stop", "length"}
    assert (tmp_path / "killed" / "samples.jsonl").read_bytes() == (tmp_path / "unbroken" / "samples.jsonl").read_bytes()
    assert timeless(tmp_path / "killed") == timeless(tmp_path / "unbroken")
    samples = rows(tmp_path / "killed" / "samples.jsonl")
    assert {row["method"] for row in samples} == {*OF_SERVERS, "samples"}
    assert len(ids := list(dict.fromkeys(row["id"] for row in samples))) == AIME_ROWS
    assert ids[:3] == ["2024-II-4", "2024-II-12", "2024-I-4"][:AIME_ROWS]
    assert len({row["answer"] for row in samples}) > 2
