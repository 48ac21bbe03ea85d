"""What is known while chains think: rows as they become final, what has changed, and what all calls amount to so far."""

import json
import threading
from pathlib import Path
from typing import Any

from faultserver import FaultServer, answer

from latent_lab.calls.client import Completion, Request
from latent_lab.calls.reply import Usage
from latent_lab.deliberation.board import Board, Spending
from latent_lab.deliberation.driving import driven
from latent_lab.job import job
from latent_lab.report.summarize import deliberated, prepared
from latent_lab.run import open_run

Row = dict[str, Any]


def row(problem: str, k: int, correct: bool, method: str = "whole", chain: int = 0) -> Row:
    return {"id": problem, "method": method, "chain": chain, "iteration": k, "correct": correct}


def call(usd: float | None, error: str | None = None) -> Row:
    return {"cost_usd": usd, "tokens": {"prompt": 10, "completion": 3}, "error": error}


def test_the_board_says_what_has_changed_since_one_looked() -> None:
    board = Board()
    board.seen(row("a", 0, False))
    version, changed = board.changed_since(0)
    assert changed == ["a"]
    board.settled([row("b", 0, True, "samples")])
    assert board.changed_since(version) == (2, ["b"])
    assert board.changed_since(2) == (2, [])
    board.seen(row("a", 1, True))
    board.seen(row("a", 0, True, "samples", 3))
    assert board.chains("a") == {
        ("whole", 0): [row("a", 0, False), row("a", 1, True)],
        ("samples", 3): [row("a", 0, True, "samples", 3)],
    }
    assert board.chains("c") == {}
    assert (board.right(), board.num_settled) == ((1, 1), 1)  # first attempts that only vote are no chains


def test_whoever_waits_for_news_has_them_at_once() -> None:
    board = Board()
    assert board.changed_since(0, wait_s=0.01) == (0, [])
    threading.Timer(0.1, board.seen, [row("a", 0, True)]).start()
    assert board.changed_since(0, wait_s=30) == (1, ["a"])


def test_calls_are_added_once_and_an_unknown_price_leaves_no_sum() -> None:
    calls = [call(0.25), call(0.5, "400")]
    board = Board(calls)
    assert board.spent() == Spending(2, 1, 20, 6, 0.75)
    calls.append(call(0.25))
    assert board.spent() == Spending(3, 1, 30, 9, 1.0)
    assert board.in_words() == "1.0000 USD, no answer yet"
    calls.append(call(None))
    board.seen(row("a", 0, True))
    assert board.in_words() == "100.0% of 1 right"


def test_what_is_told_while_others_look_is_whole() -> None:
    board = Board([])
    shown: list[int] = []

    def look() -> None:
        for _ in range(200):
            shown.extend(len(rows) for rows in board.chains("a").values())
            board.in_words()

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for k in range(200):
        board.seen(row("a", k, True))
    for thread in threads:
        thread.join()
    assert board.version == 200
    assert set(shown) <= set(range(1, 201))


# Rows on disk


def say(body: dict[str, Any]) -> Any:
    prompt = str(body["messages"][0]["content"])
    return answer("notes" if "Summarise this" in prompt else f"so</think>\\boxed{{{(len(prompt) + body['seed']) % 3}}}")


def test_a_row_is_written_when_it_is_final_and_the_end_is_the_same_as_ever(tmp_path: Path) -> None:
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps({"question": f"{n}+1?", "answer": "1"}) + "\n" for n in range(3)))
    folder, seen = tmp_path / "o", []

    def look(body: dict[str, Any]) -> Any:
        path = folder / "samples.jsonl"
        seen.append(path.read_text().splitlines(keepends=True) if path.exists() else [])
        return say(body)

    with FaultServer(say=look).running() as faults:
        server = ["backend=openai", "backend.model=m", f"backend.base_url={faults.base_url}", "backend.api_key_env=null"]
        small = ["task.chains=2", "task.samples=3", "task.iterations=2", "backend.max_in_flight=1", "task.stop=agreement"]
        dataset = ["dataset=file", f"dataset.path={tmp_path / 'problems.jsonl'}", f"out={folder}"]
        made = job("eval", ["task=summarize", *server, *small, *dataset])
        plan, problems = prepared(made.config.task, made.config)
        with open_run(folder, made.plain, command=["c"]) as run:
            (folder / "samples.jsonl").write_text('{"torn": ')  # of a process that was killed
            rows, _ = deliberated(plan, problems, folder, made.config, Board(keep=run.sample))
            came = (folder / "samples.jsonl").read_text().splitlines(keepends=True)
            run.samples(rows)
    whole = (folder / "samples.jsonl").read_text().splitlines(keepends=True)
    assert whole == [json.dumps(each, ensure_ascii=False) + "\n" for each in rows]
    assert sorted(came) == sorted(whole)  # each row once, and as it stays
    counts = [len(lines) for lines in seen if lines != ['{"torn": ']]
    assert counts == sorted(counts)
    assert 0 < counts[len(counts) // 2] < len(whole)
    assert all(set(lines) <= set(whole) for lines in seen if lines != ['{"torn": '])


class Backwards:
    """Answers the last request first."""

    def complete(self, requests: Any, advance: Any = None, told: Any = None) -> list[Completion]:
        done = [Completion(each.messages[0]["content"].upper(), None, "stop", Usage(0, 0, 0, 0)) for each in requests]
        for place in reversed(range(len(requests))):
            told(place, done[place])
        return done


def test_a_chain_hears_its_answers_in_their_order_however_they_come() -> None:
    heard = []

    def talk(*asked: str) -> Any:
        requests = [Request(({"role": "user", "content": text},), about={"role": "reason"}) for text in asked]
        answers = yield requests
        heard.append(asked[0])
        (last,) = yield requests[:1]
        return [[done.text for done in answers], last.text]

    rows = driven([talk("a", "b"), talk("c")], {"reason": Backwards()})
    assert rows == [[["A", "B"], "A"], [["C"], "C"]]
    assert heard == ["c", "a"]  # the second went on while the first still waited
