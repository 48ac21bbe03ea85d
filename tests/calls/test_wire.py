"""Requests as chats and as texts, replies that are begun, limits of single calls, and models in this process on the ledger."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from faultserver import USAGE, FaultServer
from tiny import save_hub_model

from latent_lab.calls.client import Client, Completion, Request, digest
from latent_lab.calls.here import Here
from latent_lab.calls.ledger import open_ledger, read_ledger
from latent_lab.calls.local import Chat, parts
from latent_lab.calls.reply import Usage
from latent_lab.calls.server import Server
from latent_lab.calls.wire import ChatWire, PrefillError, TextWire, Wire, paragraphs

pytest.importorskip("openai", reason="the extra api is not installed")

ASKED = ({"role": "user", "content": "2+2?"},)


def complete(folder: Path, faults: FaultServer, wire: Wire | None, *requests: Request) -> list[Completion]:
    server = Server(base_url=faults.base_url, model="tiny", api_key_env=None, max_wait_s=0.02)
    with open_ledger(folder) as ledger, Client(server, ledger, wire) as client:
        return client.complete(requests)


def test_a_chat_continues_a_reply_that_is_begun_where_the_server_can(tmp_path: Path) -> None:
    for prefill, fields in {"message": {}, "vllm": {"add_generation_prompt": False, "continue_final_message": True}}.items():
        with FaultServer().running() as faults:
            (done,) = complete(tmp_path / prefill, faults, ChatWire(prefill), Request(ASKED, prefix="It is"))
        assert done.text == "echo It is"
        body = faults.seen[0].body
        assert body["messages"] == [*ASKED, {"role": "assistant", "content": "It is"}]
        assert {name: body[name] for name in ("add_generation_prompt", "continue_final_message") if name in body} == fields


def test_a_chat_server_that_cannot_is_refused_before_a_call(tmp_path: Path) -> None:
    message = r"^prefill: given none, and a reply is to be continued; allowed: message or vllm where the server can, or api="
    with FaultServer().running() as faults:
        with pytest.raises(PrefillError, match=message):
            complete(tmp_path, faults, None, Request(ASKED, prefix="It is"))
        assert faults.seen == []


def test_a_text_is_continued_from_the_rendered_messages_and_the_prefix(tmp_path: Path) -> None:
    def say(body: dict[str, Any]) -> Any:
        return {"choices": [{"index": 0, "text": " 4", "finish_reason": "length"}], "usage": USAGE}

    with FaultServer(say=say).running() as faults:
        (done,) = complete(tmp_path, faults, TextWire(paragraphs), Request(ASKED, prefix="It is"))
    assert (done.text, done.finish_reason, done.usage.completion) == (" 4", "length", 5)
    assert (faults.seen[0].path, faults.seen[0].body["prompt"]) == ("/v1/completions", "2+2?\n\nIt is")


def test_a_request_has_its_own_limit_and_columns_and_is_another_call_with_another_limit(tmp_path: Path) -> None:
    limits = [Request(ASKED, max_tokens=limit, about={"role": "reason", "iteration": limit}) for limit in (7, 8)]
    with FaultServer().running() as faults:
        complete(tmp_path, faults, None, *limits, Request(ASKED))
        assert sorted(seen.body["max_tokens"] for seen in faults.seen) == [7, 8, 512]
    rows = {row["params"]["max_tokens"]: row for row in read_ledger(tmp_path)}
    assert (rows[7]["role"], rows[8]["iteration"]) == ("reason", 8)
    assert "role" not in rows[512]


def test_a_model_here_answers_once_and_its_calls_are_rows(tmp_path: Path) -> None:
    batches: list[int] = []

    def answer(requests: Any) -> list[Completion]:
        batches.append(len(requests))
        return [Completion(each.messages[0]["content"] + "!", None, "stop", Usage(3, 0, 2, 0)) for each in requests]

    requests = [Request(({"role": "user", "content": text},), about={"role": "reason"}) for text in ("a", "b", "a", "c")]
    for is_cached in (False, True):
        with open_ledger(tmp_path) as ledger:
            here = Here(ledger, {"model": "m", "temperature": 0}, answer, batch_size=2)
            heard: dict[int, Completion] = {}
            done = here.complete(requests, told=heard.__setitem__)
        assert [heard[place] for place in range(4)] == done
        assert [(each.text, each.is_cached) for each in done] == [(f"{x}!", is_cached) for x in "abac"]
    assert batches == [2, 1]
    assert [(row["role"], row["cost_usd"]) for row in read_ledger(tmp_path)] == [("reason", 0.0)] * 3


def test_what_a_local_model_samples_depends_on_seed_and_prompt_alone(tmp_path: Path) -> None:
    chat = Chat.load(str(save_hub_model(tmp_path, "gpt2")), None, "float32", "cpu")
    asked = [Request(({"role": "user", "content": text},), sample) for text in ("one", "two and more") for sample in (0, 1)]
    settings: dict[str, Any] = {"max_tokens": 8, "temperature": 1.0, "seed": 5}
    alone = [chat.answer([each], batch_size=1, **settings)[0] for each in asked]
    assert chat.answer(asked, batch_size=3, **settings) == alone
    assert len({each.text for each in alone}) == 4
    assert chat.answer(asked, batch_size=4, **settings | {"seed": 6}) != alone


def test_the_likeliest_token_alone_is_what_greedy_decoding_takes(tmp_path: Path) -> None:
    chat = Chat.load(str(save_hub_model(tmp_path, "gpt2")), None, "float32", "cpu")
    asked = [Request(({"role": "user", "content": text},), sample) for text in ("one", "two and more") for sample in (0, 1)]
    settings: dict[str, Any] = {"batch_size": 4, "max_tokens": 8, "seed": 5}
    greedy = chat.answer(asked, temperature=0.0, **settings)
    assert chat.answer(asked, temperature=1.0, top_k=1, **settings) == greedy
    assert chat.answer(asked, temperature=1.0, top_p=1e-6, **settings) == greedy
    hot = chat.answer(asked, temperature=1.0, **settings)
    assert chat.answer(asked, temperature=1.0, top_k=2, **settings) not in (greedy, hot)
    # A request's own temperature goes before the setting, whatever stands beside it.
    mixed = [replace(each, temperature=0.0 if n % 2 else None) for n, each in enumerate(asked)]
    assert chat.answer(mixed, temperature=1.0, **settings) == [(greedy if n % 2 else hot)[n] for n in range(4)]


def test_a_temperature_of_its_own_is_another_request_of_a_model_here(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        here = Here(ledger, {"model": "m"}, lambda requests: [], batch_size=1)
        keys = [here.key(Request(ASKED, temperature=heat)) for heat in (None, 0.0, 0.5)]
        assert len(set(keys)) == 3
        # What was answered before a request could say its temperature is still known.
        assert keys[0] == digest([{"model": "m"}, list(map(dict, ASKED)), "", None, 0])


def test_a_local_reply_that_is_begun_goes_on_and_keeps_to_its_own_limit(tmp_path: Path) -> None:
    chat = Chat.load(str(save_hub_model(tmp_path, "gpt2")), None, "float32", "cpu")
    settings: dict[str, Any] = {"batch_size": 2, "temperature": 0.0, "seed": 0}
    (whole,) = chat.answer([Request(ASKED)], max_tokens=6, **settings)
    (first,) = chat.answer([Request(ASKED, max_tokens=2)], max_tokens=6, **settings)
    assert (first.usage.completion, first.finish_reason) == (2, "length")
    (rest,) = chat.answer([Request(ASKED, prefix=first.text or "", max_tokens=4)], max_tokens=6, **settings)
    assert (first.text or "") + (rest.text or "") == whole.text


def test_batches_leave_every_row_its_positions() -> None:
    ids, limits = [[0] * 5, [0] * 5, [0] * 9], [1, 4, 1]
    assert list(parts([0, 2, 1], ids, limits, 8, room=10)) == [[0, 2], [1]]
    assert list(parts([0, 1, 2], ids, limits, 1, room=99)) == [[0], [1], [2]]
