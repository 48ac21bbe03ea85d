"""Calls in batches: at a share of the price, and never paid twice, whenever the command is killed."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from batchserver import BatchServer
from faultserver import FaultServer, error
from serving import environment

from latent_lab.calls.batches import BATCHES, client_of
from latent_lab.calls.client import BudgetSpent, CallError, Completion, Request
from latent_lab.calls.ledger import open_ledger, read_ledger
from latent_lab.calls.server import Server

pytest.importorskip("openai", reason="the extra api is not installed")


def server_at(faults: FaultServer, **settings: Any) -> Server:
    settings = {"batch": True, "batch_poll_s": 0.02, "max_wait_s": 0.02, "api_key_env": None} | settings
    return Server(base_url=faults.base_url, model="tiny", **settings)


def asked(*prompts: str) -> list[Request]:
    return [Request(({"role": "user", "content": prompt},), about={"role": "reason"}) for prompt in prompts]


def complete(folder: Path, server: Server, *prompts: str) -> list[Completion]:
    with open_ledger(folder) as ledger, client_of(server, ledger) as client:
        return client.complete(asked(*prompts))


def kept(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / BATCHES).read_text())
    return found


def test_all_that_is_waited_for_is_one_batch_at_half_the_price(tmp_path: Path) -> None:
    prices = {"price_input": 2.0, "price_cached": 0.5, "price_output": 10.0}
    with BatchServer().running() as faults:
        faults.polls_until_done = 3
        done = complete(tmp_path, server_at(faults, **prices), "a", "b", "a", "ä")
        assert (len(faults.batches), faults.polls, faults.prompts) == (1, 3, ["a", "b", "ä"])
        body = {"model": "tiny", "messages": [{"role": "user", "content": "a"}], "max_tokens": 512, "temperature": 0.0, "seed": 0}
        assert (faults.seen[0].path, faults.seen[0].body) == ("/v1/chat/completions", body)
        again = complete(tmp_path, server_at(faults, batch=False), "ä", "a")
        assert (len(faults.seen), [each.is_cached for each in again]) == (3, [True, True])  # the keys are those of single calls
    assert [each.text for each in done] == ["echo a", "echo b", "echo a", "echo ä"]
    first, *_ = rows = read_ledger(tmp_path)
    assert (len(rows), first["batch"], first["role"]) == (3, "batch-0", "reason")
    assert first["cost_usd"] == pytest.approx((6 * 2.0 + 4 * 0.5 + 5 * 10.0) / 1e6 / 2)
    assert first["t_start"] == "2026-01-31T09:30:00.000+00:00"
    assert [(each["id"], each["is_settled"], len(each["keys"])) for each in kept(tmp_path)] == [("batch-0", True, 3)]


def test_a_budget_without_room_for_the_batch_refuses_it_before_it_is_sent(tmp_path: Path) -> None:
    # A call counts beforehand as 5 bytes (its role and a letter), 64 tokens around them, and 5 written: 74, and two as 148.
    message = r"^budget_tokens: given 147, spent 0 tokens: the next call could exceed it\. 0 of 2 requests are answered"
    with BatchServer().running() as faults:
        with pytest.raises(BudgetSpent, match=message):
            complete(tmp_path, server_at(faults, max_tokens=5, budget_tokens=147), "a", "b")
        assert (faults.files, faults.batches, (tmp_path / BATCHES).exists()) == ({}, {}, False)
        assert len(complete(tmp_path, server_at(faults, max_tokens=5, budget_tokens=148), "a", "b")) == 2
        prices = {"price_input": 1e6, "price_output": 1e6, "max_tokens": 5}  # a dollar a token, half of it in a batch
        with pytest.raises(BudgetSpent, match=r"^budget_usd: given 73\.9, spent 0\.0000 US dollars"):
            complete(tmp_path / "b", server_at(faults, budget_usd=73.9, **prices), "a", "b")


def test_what_failed_for_now_is_sent_again_and_what_is_refused_is_not(tmp_path: Path) -> None:
    plan = {"a": [error(500, "oops")], "b": [error(400, "too long")]}
    with BatchServer(plan).running() as faults:
        done = complete(tmp_path, server_at(faults), "a", "b", "c")
        assert faults.prompts == ["a", "b", "c", "a"]
    assert [(each.text, each.error) for each in done] == [("echo a", None), (None, "400: too long"), ("echo c", None)]
    assert [row["batch"] for row in read_ledger(tmp_path)] == ["batch-0"] * 3 + ["batch-1"]


ENDS = {
    "expired": ([{"status": "expired", "late": "all"}], ("echo a", None), 2),
    "always expired": ([{"status": "expired", "late": "all"}] * 2, (None, "no time left"), 2),
    "failed": (
        [{"status": "failed", "errors": {"data": [{"message": "no such model"}]}}],
        (None, "the batch failed: no such model; it holds no answer"),
        1,
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_a_batch_that_does_not_complete_costs_nothing(tmp_path: Path, name: str) -> None:
    ends, said, count = ENDS[name]
    with BatchServer().running() as faults:
        faults.ends_as = [*ends]
        (done,) = complete(tmp_path, server_at(faults, max_attempts=2), "a")
        assert ((done.text, done.error), len(faults.batches)) == (said, count)
        assert len([row for row in read_ledger(tmp_path) if row["is_estimate"]]) == 0
        (done,) = complete(tmp_path, server_at(faults, max_attempts=2), "a")
    assert done.text == "echo a"


def test_a_server_without_batches_is_refused_in_a_line(tmp_path: Path) -> None:
    with BatchServer().running() as faults:
        faults.has_batches = False
        message = rf"^batch: given true; the server at {faults.base_url} does not know .* \(404: Not Found\); allowed: false$"
        with pytest.raises(CallError, match=message):
            complete(tmp_path, server_at(faults), "a")
        assert complete(tmp_path, server_at(faults, batch=False), "a")[0].text == "echo a"


def test_a_batch_whose_answer_was_lost_is_found_and_not_begun_again(tmp_path: Path) -> None:
    with BatchServer().running() as faults:
        faults.refusals = [500]
        (done,) = complete(tmp_path, server_at(faults), "a")
        assert (done.text, len(faults.batches), faults.prompts) == ("echo a", 1, ["a"])


PROGRAM = """
import sys
from pathlib import Path
from latent_lab.calls.batches import client_of
from latent_lab.calls.client import Request
from latent_lab.calls.ledger import open_ledger
from latent_lab.calls.server import Server
server = Server(base_url=sys.argv[1], model="tiny", api_key_env=None, batch=True, batch_poll_s=0.02)
with open_ledger(Path(sys.argv[2])) as ledger, client_of(server, ledger) as client:
    client.complete([Request(({"role": "user", "content": prompt},), about={"role": "reason"}) for prompt in sys.argv[3:]])
"""


def killed(faults: BatchServer, folder: Path, when: Callable[[], bool]) -> None:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, faults.base_url, str(folder), "a", "b"], env=environment())
    while not when():
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("moment", ["in the wait", "before the number came"])
def test_a_killed_command_given_again_waits_for_the_batch_that_is_paid(tmp_path: Path, moment: str) -> None:
    with BatchServer().running() as faults:
        faults.polls_until_done = 10**9
        faults.is_slow_to_say = moment != "in the wait"
        killed(faults, tmp_path, lambda: bool(faults.batches) if faults.is_slow_to_say else faults.polls > 1)
        assert [each["id"] for each in kept(tmp_path)] == [None if faults.is_slow_to_say else "batch-0"]
        assert read_ledger(tmp_path) == []
        faults.over.set()
        faults.is_slow_to_say, faults.polls_until_done = False, 0
        done = complete(tmp_path, server_at(faults), "a", "b", "c")
        assert (len(faults.batches), faults.prompts) == (2, ["a", "b", "c"])  # c is new, and goes into a batch of its own
    assert [each.text for each in done] == ["echo a", "echo b", "echo c"]
    assert [row["batch"] for row in read_ledger(tmp_path)] == ["batch-0", "batch-0", "batch-1"]
