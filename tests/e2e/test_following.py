"""A page that follows a run which is really going on, with several calls under way, seen in a browser; and what stays of it."""

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from faultserver import FaultServer, answer
from serving import environment, free_port
from tiny import result, rows

from tests.pages import CHROMIUM, QUIET, measured, needs_chromium

pytest.importorskip("openai", reason="the extra api is not installed")

ATTACK = "<img src=x onerror=alert(1)>"
TOTAL = 3 * (2 * 2 + 3)
"""Attempts: of three problems two chains with two attempts each, and three first attempts."""


class Gate:
    """Lets so many answers through as it is told."""

    def __init__(self) -> None:
        self.permits = threading.Semaphore(0)

    def say(self, body: dict[str, Any]) -> Any:
        self.permits.acquire()
        prompt = str(body["messages"][0]["content"])
        right = prompt.count("ATTEMPT")
        text = "notes" if "Summarise this" in prompt else f"{ATTACK} so</think>\\boxed{{{3 if right else 5}}}"
        return answer(text, {"prompt_tokens": 10, "completion_tokens": 7})

    def let_through(self, count: int) -> None:
        self.permits.release(count)


@contextmanager
def going_on(folder: Path, gate: Gate) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A command with its page, and the address of that."""
    problems = [{"question": f"What is {'0+' * n}3?", "answer": "3"} for n in range(3)]
    (folder / "problems.jsonl").write_text("".join(json.dumps(each) + "\n" for each in problems))
    port = free_port()
    with FaultServer(say=gate.say).running() as faults:
        server = ["backend=openai", "backend.model=m", f"backend.base_url={faults.base_url}", "backend.api_key_env=null"]
        small = ["task.iterations=1", "task.chains=2", "task.samples=3", "backend.max_in_flight=4", "backend.price_input=0"]
        page = ["backend.price_output=1000", "task.weights=[agreement,brevity]", f"task.port={port}"]
        dataset = ["dataset=file", f"dataset.path={folder / 'problems.jsonl'}", f"out={folder / 'o'}"]
        command = [sys.executable, "-m", "latent_lab.eval", "task=summarize", *server, *small, *page, *dataset]
        process = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True)
        try:
            yield process, f"http://127.0.0.1:{port}/"
        finally:
            gate.let_through(1_000)
            process.communicate() if process.returncode is None else None


def news(address: str, since: int = 0) -> dict[str, Any]:
    with urlopen(f"{address}news?since={since}", timeout=5) as reply:
        found: dict[str, Any] = json.load(reply)
    return found


def attempts(page: str) -> int:
    found = re.search(r"<dt>attempts</dt><dd>(\d+) of (\d+)</dd>", page)
    assert found is not None
    assert int(found[2]) == TOTAL
    return int(found[1])


def until(address: str, version: int, process: "subprocess.Popen[str]") -> int:
    """Wait until the page tells of so much, and then a while for what is under way; the version then."""
    for _ in range(1_200):
        assert process.poll() is None
        try:
            if (now := news(address)["version"]) >= version:
                time.sleep(0.3)
                return max(now, news(address)["version"])
        except URLError:
            pass  # it is still starting
        time.sleep(0.05)
    return pytest.fail(f"version {version} has not come after a minute")


def seen_in_browser(address: str, folder: Path, gate: Gate, after: float) -> str:
    """What stands on the page in the end, if more answers come a while after it was opened.

    The browser's own time stands still while the page waits for the server.
    """
    quiet = QUIET.replace("budget=5000", "budget=12000")  # twelve times a second's wait for news
    command = [str(CHROMIUM), *quiet.split(), f"--user-data-dir={folder}/profile", "--dump-dom", address]
    browser = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    time.sleep(after)
    gate.let_through(3)
    page, _ = browser.communicate(timeout=100)
    return page


@needs_chromium
def test_a_browser_follows_a_run_and_the_same_page_stays(tmp_path: Path) -> None:
    gate = Gate()
    with going_on(tmp_path, gate) as (process, address):
        until(address, 0, process)
        gate.let_through(3)
        for after in (4, 8):  # a busy machine may take long to open a page: then once more, more slowly
            before = until(address, 1, process)
            with urlopen(address) as reply:
                was = reply.read().decode()
            page = seen_in_browser(address, tmp_path, gate, after)
            (loaded,) = re.findall(r'data-version="(\d+)"', page)
            if int(loaded) == before:
                break
        assert int(loaded) == before  # it was opened before the last answers came,
        assert attempts(page) == attempts(was) + 3 < TOTAL  # which it shows,
        assert page.count('class="mark') > was.count('class="mark')  # each with its answer,
        assert "&lt;img src=x onerror=alert(1)&gt;" in page
        assert "<img" not in page
        assert re.search(r'role="status"[^>]*>Thinking\.<', page)
        assert "0.0" in str(re.search(r"<dt>US dollars</dt><dd>([\d.]+)</dd>", page))
        gate.let_through(1_000)
        _, log = process.communicate(timeout=120)
    assert process.returncode == 0, log
    assert f"to be followed on {address} (only this machine reaches it)" in log
    with pytest.raises(URLError):
        urlopen(address, timeout=2)

    folder = tmp_path / "o"
    report = (folder / "report.html").read_text()
    assert len(re.findall('class="attempt"', report)) == len(
        [r for r in rows(folder / "samples.jsonl") if r["method"] == "whole"]
    )
    assert "<script" not in report
    assert "&lt;img src=x onerror=alert(1)&gt;" in report
    found = result(folder)
    assert found["methods"]["whole"]["classes"]["improved_right"]["count"] == 6
    assert 'improved right: <span id="count-improved_right">6</span>' in report
    assert {"whole, then vote by agreement", "whole, then vote by brevity"} < set(found["curves"])
    assert set(found["weights"]) == {"agreement", "brevity"}
    assert "A vote by brevity weighs the inverse of the tokens" in report
    for width, content, *_ in measured(tmp_path, report, [390, 1000], "return [];", "light"):
        assert content <= width
