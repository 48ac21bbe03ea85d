"""The client against a server that fails in every way servers do: what is retried, counted and kept."""

import json
import logging
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from faultserver import USAGE, Act, FaultServer, answer, error

from latent_lab.calls.client import BudgetSpent, CallError, Client, Completion, Request, check_ready, num_bytes
from latent_lab.calls.ledger import LedgerError, open_ledger, read_ledger
from latent_lab.calls.server import Server

pytest.importorskip("openai", reason="the extra api is not installed")

KEY = "sk-test-0123456789abcdef"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)


def server_at(faults: FaultServer, **settings: Any) -> Server:
    settings = {"max_wait_s": 0.02, "api_key_env": "MY_KEY", "timeout_s": 5.0} | settings
    return Server(base_url=faults.base_url, model="tiny", **settings)


def asked(prompt: str, sample: int = 0) -> Request:
    return Request(({"role": "system", "content": "be short"}, {"role": "user", "content": prompt}), sample)


def complete(folder: Path, server: Server, *requests: Request) -> list[Completion]:
    with open_ledger(folder) as ledger, Client(server, ledger) as client:
        return client.complete(requests)


def played(tmp_path: Path, acts: list[Act], **settings: Any) -> tuple[Completion, list[dict[str, Any]], FaultServer]:
    """One request against a server that first does ``acts``: the completion, the ledger's rows, the server."""
    with FaultServer({"p": acts}).running() as faults:
        (done,) = complete(tmp_path, server_at(faults, **settings), asked("p"))
    return done, read_ledger(tmp_path), faults


def test_a_call_is_one_row_that_says_everything(tmp_path: Path) -> None:
    prices = {"price_input": 2.0, "price_cached": 0.5, "price_output": 10.0}
    done, (row,), faults = played(tmp_path, [], **prices, seed=7, extra={"top_p": 0.9})
    assert (done.text, done.finish_reason, done.error, done.is_cached) == ("echo p", "stop", None, False)
    assert faults.seen[0].path == "/v1/chat/completions"
    assert faults.seen[0].authorization == f"Bearer {KEY}"
    params = {"max_tokens": 512, "temperature": 0.0, "seed": 7, "top_p": 0.9}
    assert faults.seen[0].body == {"model": "tiny", "messages": list(asked("p").messages), **params}
    assert datetime.fromisoformat(row.pop("t_start")) <= datetime.fromisoformat(row.pop("t_end"))
    assert (len(row.pop("key_sha256")), len(row.pop("prompt_sha"))) == (64, 64)
    tokens = {"prompt": 10, "cached": 4, "completion": 5, "reasoning": 2}
    assert row == {
        "model": "tiny", "base_url": faults.base_url, "params": params, "sample": 0, "http_status": 200, "error": None,
        "text": "echo p", "reasoning": None, "finish_reason": "stop", "usage": tokens, "tokens": tokens, "is_estimate": False,
        "cost_usd": (6 * 2.0 + 4 * 0.5 + 5 * 10.0) / 1e6, "attempt": 1,
    }  # fmt: skip


RETRIED = {
    "429, seconds": error(429, "slow down", Retry_After="0.01"),
    "429, a date": error(429, "slow down", Retry_After=format_datetime(datetime.now(UTC), usegmt=True)),
    "500": error(500, "oops"),
    "503, no JSON": Act(503, body="<html>busy</html>"),
    "408": error(408, "timeout"),
    "409": error(409, "conflict"),
    "disconnect": Act(is_cut=True),
    "empty choices": Act(body={"choices": [], "usage": USAGE}),
    "no choices": Act(body={"usage": USAGE}),
    "malformed JSON": Act(body='{"choices": [{"mess'),
    "a list": Act(body=[1]),
}


@pytest.mark.parametrize("name", RETRIED)
def test_what_may_pass_is_tried_again_and_every_attempt_is_a_row(tmp_path: Path, name: str) -> None:
    done, rows, faults = played(tmp_path, [RETRIED[name]] * 2)
    assert (done.text, done.error) == ("echo p", None)
    assert len(faults.seen) == 3
    assert [row["attempt"] for row in rows] == [1, 2, 3]
    assert [row["error"] is None for row in rows] == [False, False, True]
    assert len({row["key_sha256"] for row in rows}) == 1


REFUSED = {
    "too long": (error(400, "context length is 8", "context_length_exceeded"), "400: context length is 8"),
    "no key": (error(401, "who are you?"), "401: who are you?"),
    "no model": (error(404, "there is no model tiny"), "404: there is no model tiny"),
    "no body": (Act(403, body=""), "403: no message"),
    "no money": (error(429, "quota", "insufficient_quota"), "429: quota"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_is_data_after_one_call_and_costs_nothing(tmp_path: Path, name: str) -> None:
    act, words = REFUSED[name]
    done, (row,), faults = played(tmp_path, [act] * 9, price_input=1.0, price_output=1.0)
    assert (done.text, done.error, len(faults.seen)) == (None, words, 1)
    assert (row["http_status"], row["error"], row["cost_usd"], row["is_estimate"]) == (act.status, words, 0.0, False)


def test_attempts_end_and_the_last_error_stays(tmp_path: Path) -> None:
    done, rows, faults = played(
        tmp_path, [error(500, "a"), error(502, "b"), error(503, "c"), Act(body=answer("late"))], max_attempts=3
    )
    assert (done.text, done.error, len(faults.seen), len(rows)) == (None, "503: c", 3, 3)


def test_the_server_decides_how_long_to_wait_up_to_a_limit(tmp_path: Path) -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=3600), usegmt=True)
    _, _, faults = played(tmp_path, [error(429, "", Retry_After="0.3"), error(429, "", Retry_After=soon)], max_wait_s=0.6)
    first, second, third = (seen.at for seen in faults.seen)
    assert second - first >= 0.3
    assert 0.6 <= third - second < 3600  # not the hour that the server asks for


@pytest.mark.parametrize("act", [Act(wait=1.0, body=answer("late")), Act(pause=0.05, body=answer("dribbled"))])
def test_a_slow_answer_is_given_up_after_the_timeout_however_it_dribbles(tmp_path: Path, act: Act) -> None:
    done, rows, _ = played(tmp_path, [act], timeout_s=0.4)
    assert [row["error"] for row in rows] == ["no answer within 0.4 s", None]
    assert done.text == "echo p"


def test_unknown_usage_is_counted_as_the_most_it_can_be_and_says_so(tmp_path: Path) -> None:
    _, rows, _ = played(tmp_path, [Act(is_cut=True), Act(body=answer("ok", usage=None))], max_tokens=100)
    most = {"prompt": num_bytes(asked("p")) + 128, "cached": 0, "completion": 100, "reasoning": 0}
    assert num_bytes(asked("p")) == len("systembe shortuserp")
    assert [(row["usage"], row["tokens"], row["is_estimate"]) for row in rows] == [(None, most, True)] * 2


def test_an_empty_or_a_cut_answer_and_thinking_are_kept_as_they_are(tmp_path: Path) -> None:
    acts = [Act(body=answer(None, finish_reason="length", reasoning_content="let me see"))]
    done, (row,), _ = played(tmp_path, acts)
    assert (done.text, done.reasoning, done.finish_reason, done.error) == ("", "let me see", "length", None)
    assert (row["text"], row["reasoning"], row["finish_reason"]) == ("", "let me see", "length")


def test_half_a_character_harms_nobody(tmp_path: Path) -> None:
    with FaultServer(say=lambda body: answer("\ud800x")).running() as faults:
        (done,) = complete(tmp_path, server_at(faults), asked("\udfff"))
    assert (done.text, faults.prompts) == ("?x", ["?"])
    assert read_ledger(tmp_path)[0]["text"] == "?x"


def test_a_server_that_is_not_there_cannot_be_paid(tmp_path: Path) -> None:
    with FaultServer().running() as faults:
        server = server_at(faults, max_attempts=2, price_input=1.0, price_output=1.0)
    (done,) = complete(tmp_path, server, asked("p"))
    assert done.error is not None
    assert done.error.startswith("no connection: ")
    assert [(row["http_status"], row["is_estimate"], row["cost_usd"]) for row in read_ledger(tmp_path)] == [
        (None, False, 0.0)
    ] * 2


# The ledger as cache


def test_what_was_answered_is_never_asked_again_but_errors_are(tmp_path: Path) -> None:
    with FaultServer({"bad": [error(400, "no")]}).running() as faults:
        first = complete(tmp_path, server_at(faults), asked("a"), asked("bad"), asked("a"))
        assert Counter(faults.prompts) == {"a": 1, "bad": 1}
        second = complete(tmp_path, server_at(faults), asked("a"), asked("bad"))
        assert Counter(faults.prompts) == {"a": 1, "bad": 2}
    assert [done.text for done in first] == ["echo a", None, "echo a"]
    assert [(done.text, done.is_cached) for done in second] == [("echo a", True), ("echo bad", False)]
    assert len(read_ledger(tmp_path)) == 3


def test_everything_that_matters_is_part_of_the_key(tmp_path: Path) -> None:
    with FaultServer().running() as faults, open_ledger(tmp_path) as ledger:

        def key(request: Request | None = None, **settings: Any) -> str:
            with Client(server_at(faults, **settings), ledger) as client:
                return client.key(request or asked("a"))

        same = [key(), key(max_in_flight=1, timeout_s=9, max_attempts=2, budget_tokens=9, price_input=1.0, requests_per_minute=5)]
        other = [
            key(asked("b")), key(asked("a", 1)), key(Request(asked("a").messages[1:])), key(temperature=0.5),
            key(temperature=None), key(replace(asked("a"), temperature=0.25)),
            key(seed=1), key(seed=None), key(max_tokens=9), key(limit_name="max_completion_tokens"), key(extra={"top_p": 0.5}),
        ]  # fmt: skip
        with Client(Server(base_url=faults.base_url, model="other", api_key_env=None), ledger) as client:
            other.append(client.key(asked("a")))
        with Client(Server(base_url="http://127.0.0.1:1/v1", model="tiny", api_key_env=None), ledger) as client:
            other.append(client.key(asked("a")))
    assert len(set(same)) == 1
    assert len({*same, *other}) == 1 + len(other)


def test_samples_differ_in_number_and_seed(tmp_path: Path) -> None:
    with FaultServer().running() as faults:
        complete(tmp_path, server_at(faults, seed=5, max_in_flight=1), *[asked("a", n) for n in range(3)])
        assert sorted(seen.body["seed"] for seen in faults.seen) == [5, 6, 7]


# Concurrency, rates, budgets


def test_calls_run_together_up_to_the_limit_and_come_back_in_order(tmp_path: Path) -> None:
    with FaultServer(plan={str(n): [Act(wait=0.05, body=answer(f"echo {n}"))] for n in range(20)}).running() as faults:
        done = complete(tmp_path, server_at(faults, max_in_flight=4), *[asked(str(n)) for n in range(20)])
        assert faults.most_in_flight == 4
    assert [each.text for each in done] == [f"echo {n}" for n in range(20)]


def test_requests_per_minute_are_kept_from_batch_to_batch(tmp_path: Path) -> None:
    with FaultServer().running() as faults:
        server = server_at(faults, requests_per_minute=600)
        with open_ledger(tmp_path) as ledger, Client(server, ledger) as client:
            client.complete([asked(str(n)) for n in range(12)])
            client.complete([asked(str(n)) for n in range(12, 24)])
        times = [seen.at for seen in faults.seen]
    # A second's worth (10) at once, then one every 0.1 s: 14 waits. A busy machine may see the first call late, so not all 1.4 s.
    assert len(times) == 24
    assert times[-1] - times[0] > 0.7


def test_tokens_per_minute_are_kept(tmp_path: Path) -> None:
    request = asked("x" * (1024 - 18))
    assert num_bytes(request) == 1024
    with FaultServer().running() as faults:
        others = [asked(str(n) * (1024 - 18)) for n in range(5)]
        complete(tmp_path, server_at(faults, tokens_per_minute=60_000, max_tokens=256 - 6), *others)
        times = [seen.at for seen in faults.seen]
    # 512 - 6 each, 1000 in the first second's bucket: 5 calls need 2530, so 1.5 s of refill (see above).
    assert times[-1] - times[0] > 0.7


def test_a_budget_in_tokens_stops_before_it_could_be_exceeded_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    requests = [asked(f"{n}") for n in range(10)]
    bound = num_bytes(requests[0]) + 128 + 50
    with FaultServer().running() as faults:
        with pytest.raises(BudgetSpent) as stopped:
            complete(tmp_path, server_at(faults, max_tokens=50, budget_tokens=bound + 65, max_in_flight=3), *requests)
        # 15 tokens a call: after the fifth 75 are spent, and another one could bring it above bound + 65.
        assert len(faults.seen) == 5
        assert str(stopped.value) == (
            f"budget_tokens: given {bound + 65}, spent 75 tokens: the next call could exceed it. "
            "5 of 10 requests are answered and kept; a larger one goes on there"
        )
        done = complete(tmp_path, server_at(faults, max_tokens=50, budget_tokens=10_000), *requests)
    assert [each.text for each in done] == [f"echo {n}" for n in range(10)]
    assert Counter(faults.prompts) == {f"{n}": 1 for n in range(10)}


def test_a_budget_in_money(tmp_path: Path) -> None:
    prices = {"price_input": 1e6, "price_output": 2e6, "max_tokens": 50, "max_in_flight": 1}
    most = num_bytes(asked("0")) + 128 + 2 * 50
    with FaultServer().running() as faults:
        with pytest.raises(BudgetSpent, match=r"^budget_usd: given 307.0, spent 80.0000 US dollars: "):
            complete(tmp_path, server_at(faults, **prices, budget_usd=most + 60.0), *[asked(f"{n}") for n in range(10)])
        assert len(faults.seen) == 4  # 20 dollars a call: 0, 20, 40, 60 before it, and at 80 the next could exceed it
        assert (most, sum(row["cost_usd"] for row in read_ledger(tmp_path))) == (247, 80.0)


def test_a_budget_too_small_for_anything_calls_nobody(tmp_path: Path) -> None:
    with FaultServer().running() as faults:
        with pytest.raises(BudgetSpent, match="0 of 1 requests"):
            complete(tmp_path, server_at(faults, budget_tokens=100), asked("a"))
        assert faults.seen == []


def test_failures_without_usage_count_against_the_budget(tmp_path: Path) -> None:
    with FaultServer({"a": [Act(is_cut=True)] * 9}).running() as faults:
        with pytest.raises(BudgetSpent):
            complete(tmp_path, server_at(faults, max_tokens=50, budget_tokens=450), asked("a"))
        assert len(faults.seen) == 2  # 197 each
        assert read_ledger(tmp_path)[0]["tokens"] == {"prompt": 147, "cached": 0, "completion": 50, "reasoning": 0}


# Secrets and mistakes


def test_the_key_is_nowhere_even_where_the_server_repeats_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    said = f"Incorrect API key provided: {KEY}."
    acts = {
        "a": [error(401, said)],
        "b": [Act(500, body=said)],
        "c": [Act(body=answer(said, reasoning_content=KEY, finish_reason=KEY))],
    }
    with FaultServer(acts).running() as faults:
        done = complete(tmp_path, server_at(faults), *map(asked, "abc"))
        assert {seen.authorization for seen in faults.seen} == {f"Bearer {KEY}"}
    assert (done[0].error, done[2].text) == ("401: Incorrect API key provided: ***.", "Incorrect API key provided: ***.")
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY.encode() not in written
    assert KEY not in caplog.text
    assert KEY not in repr(done)


def test_a_key_among_the_extra_fields_is_sent_but_not_written(tmp_path: Path) -> None:
    with FaultServer().running() as faults:
        complete(tmp_path, server_at(faults, extra={"api_key": "abc", "top_p": 0.5}), asked("a"))
        assert faults.seen[0].body["api_key"] == "abc"
    (row,) = read_ledger(tmp_path)
    assert row["params"] == {"max_tokens": 512, "temperature": 0.0, "seed": 0, "api_key": "***", "top_p": 0.5}


def test_without_a_variable_no_key_of_the_user_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with FaultServer().running() as faults:
        complete(tmp_path, server_at(faults, api_key_env=None), asked("a"))
        assert faults.seen[0].authorization == "Bearer none"


@pytest.mark.parametrize(
    ("value", "words"), [("", "no variable MY_KEY"), ("two\nlines", "MY_KEY holds no key"), ("schlüssel", "MY_KEY holds no key")]
)
def test_a_key_that_is_not_there_or_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, words: str) -> None:
    monkeypatch.setenv("MY_KEY", value)
    with FaultServer().running() as faults, pytest.raises(CallError, match=words):
        complete(tmp_path, server_at(faults), asked("a"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": ""}, "model=: give the model's name, as the server knows it"),
        ({"api_key_env": KEY},
         "api_key_env=***: allowed are the NAME of an environment variable in capitals (not the key itself), or null"),
        ({"base_url": f"https://me:{KEY}@host/v1"},
         "base_url=***: allowed are addresses without user, password and query; a key goes by api_key_env"),
        ({"base_url": "localhost:8000"}, "base_url=localhost:8000: allowed are addresses such as https://api.openai.com/v1"),
        ({"limit_name": "length"}, "limit_name=length: allowed are max_tokens, max_completion_tokens"),
        ({"extra": {"seed": 1}}, "extra={'seed': 1}: seed has a setting of its own; allowed are all other fields"),
        ({"extra": "top_p"}, "extra=top_p: allowed are fields and values, as in {top_p: 0.9}"),
        ({"max_attempts": 0}, "max_attempts=0: allowed are 1 and more"),
        ({"requests_per_minute": 0}, "requests_per_minute=0: allowed are numbers above 0"),
        ({"batch_poll_s": 0}, "batch_poll_s=0: allowed are numbers above 0"),
        ({"batch_share": -1}, "batch_share=-1: allowed are 0 and more"),
        ({"timeout_s": 0}, "timeout_s=0: allowed are numbers above 0"),
        ({"temperature": -1}, "temperature=-1: allowed are 0 and more"),
        ({"budget_usd": 1.0, "price_input": 1.0},
         "budget_usd=1.0: money is counted only with price_input and price_output; give both"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r".") as wrong:
        Server(**({"model": "m"} | settings))
    assert str(wrong.value) == message


@pytest.mark.parametrize("library", ["openai", "tenacity", "aiolimiter"])
def test_a_library_that_is_not_installed(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latent_lab.calls.client.find_spec", lambda name: None if name == library else name)
    with pytest.raises(
        CallError, match=rf"^calling a server takes {library}, which is not installed: pip install 'latent_lab\[api\]'$"
    ):
        check_ready(Server(model="m"))


# The ledger itself


def row(key: str, **values: Any) -> dict[str, Any]:
    tokens = {"prompt": 10, "cached": 4, "completion": 5, "reasoning": 2}
    return {"key_sha256": key, "error": None, "tokens": tokens, "is_estimate": False, "cost_usd": 0.1} | values


def test_totals_are_sums_of_rows_in_any_order(tmp_path: Path) -> None:
    rows = [
        row("a", error="500", cost_usd=0.0),
        row("a", cost_usd=0.1),
        row("b", cost_usd=0.2, is_estimate=True),
        row("c", cost_usd=0.3),
    ]
    for number, order in enumerate((rows, rows[::-1])):
        with open_ledger(tmp_path / str(number)) as ledger:
            for each in order:
                ledger.add(each)
            assert ledger.totals() == {
                "calls": 4, "answered": 3, "failed": 1, "estimated": 1, "cost_usd": 0.6,
                "tokens": {"prompt": 40, "cached": 16, "completion": 20, "reasoning": 8},
            }  # fmt: skip
    with open_ledger(tmp_path / "unknown") as ledger:
        ledger.add(row("a", cost_usd=None))
        assert ledger.totals()["cost_usd"] is None


@pytest.mark.parametrize("torn", [b'{"key_sha', b"{", b'{"key_sha256": "c", "text": "\xc3'])
def test_a_torn_last_row_is_dropped_and_the_next_one_starts_a_line(tmp_path: Path, torn: bytes) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.add(row("a"))
    path = tmp_path / "calls.jsonl"
    path.write_bytes(path.read_bytes() + torn)
    assert [each["key_sha256"] for each in read_ledger(tmp_path)] == ["a"]
    with open_ledger(tmp_path) as ledger:
        assert ledger.answered("a") is not None
        ledger.add(row("b"))
    assert [json.loads(line)["key_sha256"] for line in path.read_text().splitlines()] == ["a", "b"]


def test_a_last_row_that_lacks_its_end_of_line_alone_is_kept(tmp_path: Path) -> None:
    (tmp_path / "calls.jsonl").write_text(json.dumps(row("a")))
    with open_ledger(tmp_path) as ledger:
        ledger.add(row("b"))
    assert [each["key_sha256"] for each in read_ledger(tmp_path)] == ["a", "b"]


@pytest.mark.parametrize("line", ["{torn}\n", "[1]\n", "{}\n"])
def test_a_file_that_is_no_ledger_is_refused_and_left_alone(tmp_path: Path, line: str) -> None:
    path = tmp_path / "calls.jsonl"
    path.write_text(line)
    with pytest.raises(LedgerError, match="line 1: this is no row of a ledger"), open_ledger(tmp_path):
        pass
    assert path.read_text() == line


def test_two_processes_cannot_write_one_ledger(tmp_path: Path) -> None:
    with open_ledger(tmp_path), pytest.raises(LedgerError) as second, open_ledger(tmp_path):
        pass
    path = tmp_path / "calls.jsonl"
    assert str(second.value) == f"{path} is being written by another process: wait for it to end, or take another folder"
    with open_ledger(tmp_path):
        pass


def test_every_request_hears_its_answer_as_soon_as_it_is_there(tmp_path: Path) -> None:
    """The slow one is the last to be heard; equal ones are asked once and both hear."""
    with FaultServer({"slow": [Act(wait=0.4, body=answer("late"))]}).running() as faults:
        heard: list[tuple[int, str | None]] = []
        requests = [asked("slow"), asked("a"), asked("a")]
        with open_ledger(tmp_path) as ledger, Client(server_at(faults), ledger) as client:
            client.complete(requests, told=lambda place, done: heard.append((place, done.text)))
            assert heard == [(1, "echo a"), (2, "echo a"), (0, "late")]
            client.complete(requests[1:2], told=lambda place, done: heard.append((place, done.text)))
    assert heard[3:] == [(0, "echo a")]  # from the ledger, too
    assert len(faults.seen) == 2
