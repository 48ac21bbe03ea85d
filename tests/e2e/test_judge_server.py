"""Judging as a user does it: watched by a server, killed and repeated, and against the server that transformers brings."""

import json
import logging
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chatmodel import PLANNING, save_chat_model
from faultserver import FaultServer, answer, error
from serving import environment, transformers_serve
from tiny import evaluate, result, rows, train

from latent_lab.backbone import ModelError
from latent_lab.calls.client import BudgetSpent, CallError
from latent_lab.grading.judge import JudgeError

pytest.importorskip("openai", reason="the extra api is not installed")

KEY = "sk-e2e-0123456789abcdef"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that writes its steps and has learned too little: it answers most sums wrongly."""
    return train(tmp_path_factory.mktemp("trained"), "stage=cot", "stage.epochs=[12]", "name=x", "optim.lr=3e-3")


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)


def openai_at(base_url: str, *overrides: str) -> list[str]:
    return ["judge=openai", "judge.model=tiny", f"judge.base_url={base_url}", "judge.api_key_env=JUDGE_KEY", *overrides]


def judge_by_length(body: dict[str, Any]) -> Any:
    """A judge whose verdict depends on what it is asked."""
    kind = ("planning", "execution", "both")[len(body["messages"][1]["content"]) % 3]
    return answer(json.dumps({"reason": "so", "kind": kind}))


def test_the_rules_judge_at_no_cost(run: Path, tmp_path: Path) -> None:
    found = evaluate(run, f"out={tmp_path / 'o'}", "task.floors=false", "judge=rules")
    wrong = [row for row in rows(tmp_path / "o" / "samples.jsonl") if row["correct"] is False]
    assert found["judge"]["judged"] == len(wrong) == 11
    assert [row["id"] for row in rows(tmp_path / "o" / "verdicts.jsonl")] == [row["id"] for row in wrong]
    assert "judge" not in evaluate(run, f"out={tmp_path / 'none'}", "task.floors=false")


JUDGING = """
import json, sys
from pathlib import Path
from latent_lab.grading.judge import by_rules, judged
from latent_lab.grading.judge_prompt import Case
from latent_lab.grading.judges import OpenAIJudge

base_url, folder = sys.argv[1:]
judge = OpenAIJudge(base_url=base_url, model="tiny", api_key_env="JUDGE_KEY", votes=2, temperature=1.0, calibration=5)
judge.max_in_flight = 3
cases = [Case(str(n), f"What is {n} times 8?", f"<<{n}*8={n + 8}>>\\n### {n + 8}", str(n + 8), str(n * 8)) for n in range(10, 30)]
summary = judged(judge, cases, [by_rules(case) for case in cases], Path(folder))
Path(folder, "summary.json").write_text(json.dumps(summary))
"""
"""A process that has twenty answers judged twice."""


def killed_and_repeated(faults: FaultServer, folder: Path, asked: int, process: Callable[[Path], list[str]]) -> None:
    """Let the process of a folder work unbroken, and in another folder be killed and repeated; see what was asked how often."""

    def start(name: str) -> subprocess.Popen[str]:
        return subprocess.Popen(process(folder / name), env=environment(), stderr=subprocess.PIPE, text=True)

    def end(process: subprocess.Popen[str]) -> None:
        _, log = process.communicate(timeout=120)
        assert process.returncode == 0, log

    def requests() -> Counter[tuple[str, int]]:
        return Counter((seen.prompt, seen.body["seed"]) for seen in faults.seen)

    end(start("unbroken"))
    assert set(requests().values()) == {1}
    assert len(requests()) == asked
    unbroken = requests()

    faults.seen.clear()
    faults.wait = 0.1
    killed = start("killed")
    while len(faults.seen) < asked // 2 and killed.poll() is None:
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    paid = {row["key_sha256"] for row in rows(folder / "killed" / "calls.jsonl")}
    assert asked // 2 - 3 <= len(paid) < asked
    assert not (folder / "killed" / "verdicts.jsonl").exists()

    faults.wait = 0.0
    end(start("killed"))
    # What was under way when it was killed, three calls at most, is all that is made twice; what was answered is not.
    assert requests().keys() == unbroken.keys()
    assert sum(requests().values()) - asked <= 3
    assert Counter(row["key_sha256"] for row in rows(folder / "killed" / "calls.jsonl")).most_common(1)[0][1] == 1
    assert (folder / "killed" / "verdicts.jsonl").read_bytes() == (folder / "unbroken" / "verdicts.jsonl").read_bytes()


def test_a_judge_killed_in_the_middle_and_repeated_makes_no_answered_call_again(tmp_path: Path) -> None:
    with FaultServer(say=judge_by_length).running() as faults:
        killed_and_repeated(faults, tmp_path, 40, lambda out: [sys.executable, "-c", JUDGING, faults.base_url, str(out)])
    assert (tmp_path / "killed" / "summary.json").read_bytes() == (tmp_path / "unbroken" / "summary.json").read_bytes()
    found = json.loads((tmp_path / "killed" / "summary.json").read_text())
    assert (found["judged"], found["calls"]["calls"], found["calls"]["answered"]) == (20, 40, 40)
    assert (found["calibration"]["agreement"]["n"], found["rules"]["agreement"]["n"]) == (5, 20)


@pytest.mark.slow
def test_the_command_killed_in_the_middle_and_repeated_makes_no_answered_call_again(run: Path, tmp_path: Path) -> None:
    settings = ("judge.max_in_flight=3", "judge.temperature=1", "judge.votes=2")

    def command(out: Path) -> list[str]:
        asked = openai_at(faults.base_url, *settings)
        return [sys.executable, "-m", "latent_lab.eval", f"run={run}", "device=cpu", f"out={out}", "task.floors=false", *asked]

    with FaultServer(say=judge_by_length).running() as faults:
        killed_and_repeated(faults, tmp_path, 22, command)
    killed, unbroken = (
        {key: value for key, value in result(tmp_path / name).items() if key != "seconds"} for name in ("killed", "unbroken")
    )
    assert killed == unbroken
    assert killed["judge"]["calls"]["calls"] == 22


def test_a_spent_budget_leaves_no_result_and_the_command_with_a_larger_one_goes_on(run: Path, tmp_path: Path) -> None:
    def say(body: dict[str, Any]) -> Any:
        return judge_by_length(body) | {"usage": {"prompt_tokens": 1000, "completion_tokens": 500}}

    with FaultServer(say=say).running() as faults:
        prices = ("judge.price_input=1000", "judge.price_output=1000", "judge.max_in_flight=1")
        settings = [f"out={tmp_path / 'o'}", "task.floors=false", *openai_at(faults.base_url, *prices)]
        # 1.5 dollars a call, and at most about 2.2: after the third the next could bring 4.5 above 6.
        with pytest.raises(BudgetSpent, match=r"^judge\.budget_usd: given 6\.0, spent 4\.5000 US dollars: .* 3 of 11 requests"):
            evaluate(run, *settings, "judge.budget_usd=6")
        assert not (tmp_path / "o" / "result.json").exists()
        calls = evaluate(run, *settings, "judge.budget_usd=100")["judge"]["calls"]
        assert set(Counter(faults.prompts).values()) == {1}
    assert (calls["calls"], calls["cost_usd"]) == (11, 16.5)


def test_every_run_of_a_study_is_judged_and_paid_once(run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run, run.parent / "y", ignore=shutil.ignore_patterns("eval"))
    with FaultServer(say=judge_by_length).running() as faults:
        settings = ["task.floors=false", "limit=5", *openai_at(faults.base_url), f"outputs={run.parent}"]
        found = evaluate(Path(f"{run},{other}"), *settings, f"out={tmp_path / 'study'}")["runs"]
        calls = len(faults.seen)
        assert [found[label]["judge"]["judged"] for label in ("x", "y")] == [5, 5]
        assert sum(found[label]["judge"]["calls"]["calls"] for label in ("x", "y")) == calls
        again = evaluate(Path(f"{run},{other}"), *settings, "judge.max_in_flight=2", f"out={tmp_path / 'again'}")["runs"]
        assert (again, len(faults.seen)) == (found, calls)


def test_the_key_is_on_no_disk_and_in_no_log(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)

    def say(body: dict[str, Any]) -> Any:
        return answer(json.dumps({"reason": f"you sent {KEY}", "kind": "both"}))

    with FaultServer(say=say).running() as faults:
        evaluate(run, f"out={tmp_path / 'o'}", "task.floors=false", *openai_at(faults.base_url))
        assert {seen.authorization for seen in faults.seen} == {f"Bearer {KEY}"}
        prompt = faults.prompts[0]
    refusal = {prompt: [error(401, f"Incorrect API key: {KEY}")]}
    with (
        FaultServer(refusal, say).running() as faults,
        pytest.raises(JudgeError, match=r"401: Incorrect API key: \*\*\*\. The rep"),
    ):
        evaluate(run, f"out={tmp_path / 'e'}", "task.floors=false", *openai_at(faults.base_url, "judge.max_errors=0"))
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"you sent ***" in written
    assert KEY.encode() not in written
    assert KEY not in caplog.text + "".join(capfd.readouterr())


def test_who_cannot_be_asked_is_said_before_any_work(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(CallError, match=r"^judge\.api_key_env: the environment has no variable JUDGE_KEY; allowed: "):
        evaluate(run, f"out={tmp_path / 'o'}", *openai_at("http://127.0.0.1:9/v1"))
    with pytest.raises(ModelError, match=r"^judge\.path: given 'nowhere'; allowed: "):
        evaluate(run, f"out={tmp_path / 'l'}", "judge=local", "judge.path=nowhere")
    assert list(tmp_path.rglob("samples.jsonl")) == []


def test_a_real_server_judges(run: Path, tmp_path: Path) -> None:
    """The server of transformers, a real model, real usage; and the same model in this process says the same."""
    model = save_chat_model(tmp_path / "model", (PLANNING,))
    with transformers_serve(model, tmp_path / "log") as base_url:
        settings = [f"judge.model={model}", "judge.max_tokens=8", "judge.api_key_env=null", "judge.max_attempts=2"]
        asked = openai_at(base_url, *settings)
        found = evaluate(run, f"out={tmp_path / 'o'}", "task.floors=false", *asked)["judge"]
    assert found["judged"] == found["kinds"]["planning"]["count"] == found["calls"]["answered"] == found["calls"]["calls"] == 11
    assert (found["unreadable"], found["errors"], found["calls"]["estimated"]) == (0, 0, 0)
    for row in rows(tmp_path / "o" / "calls.jsonl"):
        assert (row["text"], row["http_status"], row["usage"]["completion"]) == (PLANNING, 200, 2)
        assert row["usage"]["prompt"] > 1000
    local = evaluate(
        run, f"out={tmp_path / 'l'}", "task.floors=false", "judge=local", f"judge.path={model}", "judge.max_tokens=8"
    )
    assert local["judge"]["kinds"] == found["kinds"]
    assert local["judge"]["rules"] == found["rules"]
