"""The loop against a server that says exactly what each test needs: what is asked, handed on, spent, and why a chain ends."""

import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from batchserver import BatchServer
from faultserver import Act, FaultServer, answer, error

from latent_lab.calls.client import BudgetSpent, CallError
from latent_lab.calls.ledger import read_ledger, totals
from latent_lab.config import ConfigError
from latent_lab.deliberation.prompts import load_prompt
from latent_lab.deliberation.rivals import curves
from latent_lab.job import job
from latent_lab.report.summarize import DeliberationError, check_errors, deliberated, prepared, read_again, stops

pytest.importorskip("openai", reason="the extra api is not installed")

SUMMARISING = "Summarise this attempt"
Row = dict[str, Any]


def usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion}


def boxed(number: object, thinking: str = "one two three four") -> str:
    return f"{thinking}</think>It is \\boxed{{{number}}}."


def prompt_of(body: dict[str, Any]) -> str:
    return str(body["messages"][0]["content"] if "messages" in body else body["prompt"])


def say_by_turn(*replies: str) -> Callable[[dict[str, Any]], Any]:
    """The n-th reply to a prompt that speaks of n earlier attempts; ``notes`` where a summary is asked for."""

    def say(body: dict[str, Any]) -> Any:
        prompt = prompt_of(body)
        if SUMMARISING in prompt or "part of a longer attempt" in prompt or "Notes are kept" in prompt:
            return answer("notes", usage(20, 5))
        return answer(replies[min(prompt.count("ATTEMPT "), len(replies) - 1)], usage(10, 7))

    return say


def problems(folder: Path, count: int = 1) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "problems.jsonl"
    rows = [{"id": f"p{n}", "question": f"What is 3+{n}?", "answer": str(3 + n)} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def deliberate(folder: Path, faults: FaultServer, *overrides: str, count: int = 1) -> tuple[Row, list[Row]]:
    """Why chains ended, what calls amount to, and the rows of a small command's chains, without what the report makes of them."""
    small = ["task.chains=1", "task.samples=1", "task.iterations=2", "backend.api_key_env=null", "backend.max_wait_s=0.02"]
    asked = ["task=summarize", "backend=openai", "backend.model=tiny", f"backend.base_url={faults.base_url}", *small]
    dataset = ["dataset=file", f"dataset.path={problems(folder, count)}"]
    made = job("eval", [*asked, *dataset, f"out={folder / 'o'}", *overrides])
    plan, asked_about = prepared(made.config.task, made.config)
    rows, calls = deliberated(plan, asked_about, folder / "o", made.config)
    check_errors(rows, made.config.task.max_errors)
    return {"stops": stops(rows), "calls": totals(calls)}, [row for row in rows if row["method"] != "samples"]


def reasoning_prompts(faults: FaultServer) -> list[str]:
    return [prompt_of(seen.body) for seen in faults.seen if SUMMARISING not in prompt_of(seen.body)]


def test_what_is_thought_is_summarised_and_every_summary_is_handed_on(tmp_path: Path) -> None:
    with FaultServer(say=say_by_turn(boxed(5), boxed(3), boxed(3))).running() as faults:
        result, rows = deliberate(tmp_path, faults)
    assert [(row["answer"], row["correct"]) for row in rows] == [("5", False), ("3", True), ("3", True)]
    assert [row["summary"] for row in rows] == ["notes", "notes", None]
    first, second, third = reasoning_prompts(faults)
    assert "ATTEMPT" not in first
    assert "ATTEMPT 1:\nnotes\n\nFirst judge" in second
    assert "ATTEMPT 1:\nnotes\n\nATTEMPT 2:\nnotes\n\nFirst judge" in third
    (summary, _) = [prompt_of(seen.body) for seen in faults.seen if SUMMARISING in prompt_of(seen.body)]
    assert summary.endswith("Attempt:\none two three four")  # the trace alone, without what follows </think>
    # 7 tokens for an attempt, 5 for a summary; the ledger holds the same sums.
    assert [row["cum_tokens"] for row in rows] == [12, 24, 31]
    assert (rows[0]["prompt_tokens"], rows[0]["reasoning_tokens"], rows[0]["summary_tokens"]) == (10, 7, 5)
    assert (result["calls"]["calls"], result["calls"]["tokens"]["completion"]) == (5, 31)
    assert {row["role"] for row in read_ledger(tmp_path / "o")} == {"reason", "summary"}
    assert len({row["prompt_sha256"] for row in rows}) == 2
    base = load_prompt("summarise", "base_v1").sha256
    assert [row["summary_prompt_sha256"] for row in rows] == [base, base, None]


HANDED_ON = {
    "first_k": "one two ...",
    "last_k": "...three four",
    "post_think": "It is \\boxed{5}.",
    "answer_only": "The answer found was 5.",
    "chunked": "notes\nnotes",
    "running": "notes",
    "whole": "notes",
}


@pytest.mark.parametrize("method", HANDED_ON)
def test_each_method_hands_on_what_it_says(tmp_path: Path, method: str) -> None:
    with FaultServer(say=say_by_turn(boxed(5))).running() as faults:
        _, rows = deliberate(tmp_path, faults, f"task.methods=[{method}]", "task.k=2", "task.chunk=2", "task.iterations=1")
    assert rows[0]["summary"] == HANDED_ON[method]
    assert f"ATTEMPT 1:\n{HANDED_ON[method]}\n\nFirst judge" in prompt_of(faults.seen[-1].body)


def test_random_tokens_are_drawn_once_and_for_all(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        with FaultServer(say=say_by_turn(boxed(5, "a b c d e f g h"))).running() as faults:
            _, rows = deliberate(tmp_path / name, faults, "task.methods=[random_k]", "task.k=3")
        found.append([row["summary"] for row in rows])
    assert found[0] == found[1]
    assert len(found[0][0].split()) == 3


def test_notes_are_carried_from_part_to_part(tmp_path: Path) -> None:
    def say(body: dict[str, Any]) -> Any:
        prompt = prompt_of(body)
        if "Notes are kept" not in prompt:
            return answer(boxed(3))
        so_far, part = (
            prompt.partition(f"{head}\n")[2].partition("\n")[0] for head in ("Notes so far:", "Next part of the attempt:")
        )
        return answer(f"{so_far}+{part.strip()}")

    with FaultServer(say=say).running() as faults:
        _, rows = deliberate(tmp_path, faults, "task.methods=[running]", "task.chunk=2", "task.iterations=1")
    assert rows[0]["summary"] == "(none yet)+one two+three four"


MEMORIES = {
    "all": "ATTEMPT 1:\nn1\n\nATTEMPT 2:\nn2\n\nATTEMPT 3:\nn3",
    "last": "ATTEMPT 3:\nn3",
    "window": "ATTEMPT 2:\nn2\n\nATTEMPT 3:\nn3",
    "running": "n3",
}


@pytest.mark.parametrize("memory", MEMORIES)
def test_the_memory_is_all_the_last_a_window_or_one_running_text(tmp_path: Path, memory: str) -> None:
    count = 0

    def say(body: dict[str, Any]) -> Any:
        nonlocal count
        if SUMMARISING in prompt_of(body) or "Notes are kept" in prompt_of(body):
            count += 1
            return answer(f"n{count}")
        return answer(boxed(count))

    with FaultServer(say=say).running() as faults:
        deliberate(tmp_path, faults, f"task.memory={memory}", "task.iterations=3")
    last = prompt_of(faults.seen[-1].body)
    assert f"previous attempts:\n\n{MEMORIES[memory]}\n\nFirst judge" in last
    if memory == "running":
        (carrying, _) = [prompt_of(seen.body) for seen in faults.seen if "Notes are kept" in prompt_of(seen.body)]
        assert "Notes so far:\nn1\n" in carrying


STOPS = {
    "fixed": (["5", "5", "5", "3"], ["fixed"]),
    "agreement": (["5", "5"], ["agreement"]),
    "no_change": (["5", "5"], ["no_change"]),
    "oracle_stop": (["5", "5", "5", "3"], ["fixed"]),
}


@pytest.mark.parametrize("stop", STOPS)
def test_a_chain_stops_by_its_rule_and_its_answer_is_carried_on(tmp_path: Path, stop: str) -> None:
    replies = [boxed(5), boxed(5), boxed(5), boxed(3), boxed(9)]
    with FaultServer(say=say_by_turn(*replies)).running() as faults:
        result, rows = deliberate(tmp_path, faults, f"task.stop={stop}", "task.iterations=3")
    answers, why = STOPS[stop]
    assert [row["answer"] for row in rows if not row["is_carried"]] == answers
    assert list(result["stops"]["whole"]) == why
    assert len(rows) == 4
    assert rows[-1]["cum_tokens"] == max(row["cum_tokens"] for row in rows)


def test_only_the_oracle_stops_at_a_right_answer(tmp_path: Path) -> None:
    with FaultServer(say=say_by_turn(boxed(5), boxed(3), boxed(9))).running() as faults:
        result, rows = deliberate(tmp_path, faults, "task.stop=oracle_stop", "task.iterations=4")
    assert ([row["answer"] for row in rows], result["stops"]["whole"]) == (["5", "3", "3", "3", "3"], {"oracle_stop": 1})


def cut_then_done(body: dict[str, Any]) -> Any:
    """A text server that writes seven words, ``max_tokens`` at a time."""
    whole = "a b c d e f g</think>\\boxed{3}"
    begun = body["prompt"].rpartition("\n\n")[2]
    left = whole[len(begun) :].split(" ")
    part = left[: body["max_tokens"]]
    ends = "stop" if len(part) == len(left) else "length"
    text = " ".join(part) + (" " if ends == "length" else "")
    return {"choices": [{"text": text, "finish_reason": ends}], "usage": usage(9, len(part))}


def test_what_is_cut_off_is_continued_within_the_budget_of_a_step(tmp_path: Path) -> None:
    settings = ("backend.api=completions", "backend.max_tokens=3", "task.methods=[answer_only]", "task.iterations=1")
    with FaultServer(say=cut_then_done).running() as faults:
        _, (first, _) = deliberate(tmp_path / "a", faults, *settings, "task.step_tokens=100")
        assert (first["reasoning"], first["finish_reason"], first["calls"]) == ("a b c d e f g</think>\\boxed{3}", "stop", 3)
        assert (first["prompt_tokens"], first["reasoning_tokens"]) == (27, 7)  # the beginning is read again by every call
        assert read_again(read_ledger(tmp_path / "a" / "o")) == 36  # by two calls in each of two attempts
    with FaultServer(say=cut_then_done).running() as faults:
        _, (first, _) = deliberate(tmp_path / "b", faults, *settings, "task.step_tokens=5")
        assert (first["reasoning"], first["finish_reason"], first["calls"]) == ("a b c d e ", "length", 2)
        assert [seen.body["max_tokens"] for seen in faults.seen[:2]] == [3, 2]
        assert (first["answer"], first["reason"]) == (None, "truncated")


def test_a_longer_budget_goes_on_where_it_was_cut_off_and_ends_by_itself(tmp_path: Path) -> None:
    settings = ("backend.api=completions", "backend.max_tokens=4", "task.methods=[longer]", "task.iterations=3")
    with FaultServer(say=cut_then_done).running() as faults:
        result, rows = deliberate(tmp_path, faults, *settings)
    assert [row["answer"] for row in rows] == [None, "3", "3", "3"]
    assert ([row["cum_tokens"] for row in rows], result["stops"]["longer"]) == ([4, 7, 7, 7], {"finished": 1})


def test_wait_takes_the_end_of_thinking_away_and_goes_on(tmp_path: Path) -> None:
    def say(body: dict[str, Any]) -> Any:
        begun = body["messages"][1]["content"] if len(body["messages"]) > 1 else ""
        return answer(" so</think>\\boxed{3}" if begun else boxed(5), usage(1, 2))

    with FaultServer(say=say).running() as faults:
        _, rows = deliberate(tmp_path, faults, "task.methods=[wait]", "backend.prefill=message")
    assert [seen.body["messages"][1]["content"] for seen in faults.seen[1:]] == [
        "one two three four\n\nWait",
        "one two three four\n\nWait so\n\nWait",
    ]
    assert [(row["answer"], row["reasoning_tokens"]) for row in rows] == [("5", 2), ("3", 2), ("3", 2)]


def test_a_tail_begins_the_next_reply(tmp_path: Path) -> None:
    with FaultServer(say=say_by_turn(boxed(5))).running() as faults:
        _, rows = deliberate(tmp_path, faults, "task.methods=[tail]", "task.k=2", "task.iterations=1", "backend.prefill=vllm")
    assert faults.seen[1].body["messages"][1] == {"role": "assistant", "content": "three four"}
    assert "ATTEMPT" not in prompt_of(faults.seen[1].body)
    assert len({row["prompt_sha256"] for row in rows}) == 1


def test_segments_go_on_only_while_the_trace_is_cut_off(tmp_path: Path) -> None:
    def say(body: dict[str, Any]) -> Any:
        if SUMMARISING in prompt_of(body):
            return answer("half way")
        is_second = "half way" in prompt_of(body)
        return answer(boxed(3) if is_second else "so far", finish_reason="stop" if is_second else "length")

    with FaultServer(say=say).running() as faults:
        result, rows = deliberate(tmp_path, faults, "task.methods=[segment]", "task.iterations=3")
    assert ([row["answer"] for row in rows], result["stops"]["segment"]) == ([None, "3", "3", "3"], {"finished": 1})


def test_thinking_that_a_server_shows_apart_is_the_trace(tmp_path: Path) -> None:
    def say(body: dict[str, Any]) -> Any:
        if SUMMARISING in prompt_of(body):
            return answer("notes", reasoning_content="let me summarise")
        return answer("\\boxed{3}", reasoning_content="I add")

    with FaultServer(say=say).running() as faults:
        _, rows = deliberate(tmp_path, faults, "task.iterations=1")
    assert (rows[0]["reasoning"], rows[0]["summary"]) == ("I add\n</think>\n\\boxed{3}", "notes")
    assert any(prompt_of(seen.body).endswith("Attempt:\nI add") for seen in faults.seen)


UNENDED = "one two three \\boxed{5}"
PROMPTED = {"whole": [0, 1, 2], "drop": [0, 0, 1], "error": [0]}
"""How many attempts each prompt speaks of, where thinking does not end in the first reply, by ``no_end``."""


@pytest.mark.parametrize("no_end", ["whole", "drop", "error"])
@pytest.mark.parametrize("method", ["whole", "first_k"])
def test_a_trace_without_an_end_is_whole_or_dropped_or_an_error(tmp_path: Path, method: str, no_end: str) -> None:
    def say(body: dict[str, Any]) -> Any:
        is_summary = SUMMARISING in prompt_of(body)
        return answer("notes" if is_summary else boxed(3) if body["seed"] else UNENDED, usage(10, 7))

    settings = (f"task.methods=[{method}]", "task.k=2", f"task.no_end={no_end}", "task.max_errors=1")
    with FaultServer(say=say).running() as faults:
        result, rows = deliberate(tmp_path, faults, *settings)
        prompts = reasoning_prompts(faults)
        num_summaries = len(faults.seen) - len(prompts)
    assert [prompt.count("ATTEMPT ") for prompt in prompts] == PROMPTED[no_end]
    told = "notes" if method == "whole" else "one two ..."
    summaries = {"whole": [told, told, None], "drop": [None, told, None], "error": ["", None, None]}[no_end]
    assert [row["summary"] for row in rows] == summaries
    assert num_summaries == (summaries.count("notes"))
    assert [row["answer"] for row in rows] == (["5"] * 3 if no_end == "error" else ["5", "3", "3"])
    hashes = [row["prompt_sha256"] for row in rows]
    assert (hashes[1] == hashes[0], hashes[2] == hashes[0]) == (no_end != "whole", no_end == "error")
    error = "'</think>' does not stand in the reply, and task.no_end=error" if no_end == "error" else None
    assert (rows[0]["error"], rows[0]["stop_reason"]) == (error, error and "error")
    assert result["stops"] == {method: {"error" if error else "fixed": 1}, "samples": {"fixed": 1}}


def test_thinking_that_is_cut_off_apart_from_the_answer_has_no_end(tmp_path: Path) -> None:
    def say(body: dict[str, Any]) -> Any:
        return answer(
            "" if body["seed"] == 0 else boxed(3),
            finish_reason="length" if body["seed"] == 0 else "stop",
            reasoning_content="I add",
        )

    settings = ("task.methods=[first_k]", "task.no_end=drop", "task.iterations=1")
    with FaultServer(say=say).running() as faults:
        _, (first, second) = deliberate(tmp_path, faults, *settings)
    assert (first["reasoning"], first["summary"]) == ("I add", None)
    assert second["reasoning"].startswith("I add\n</think>\n")


def test_whoever_thinks_may_summarise_at_another_temperature(tmp_path: Path) -> None:
    with FaultServer(say=say_by_turn(boxed(5), boxed(3))).running() as faults:
        deliberate(tmp_path, faults, "backend.temperature=0.6", "task.summary_temperature=0", "task.iterations=1")
        asked = [(SUMMARISING in prompt_of(seen.body), seen.body["temperature"]) for seen in faults.seen]
    assert sorted(asked) == [(False, 0.6), (False, 0.6), (True, 0.0)]


def test_another_model_summarises(tmp_path: Path) -> None:
    with FaultServer(say=say_by_turn(boxed(3))).running() as faults:
        other = [
            "summariser=openai",
            "summariser.model=small",
            f"summariser.base_url={faults.base_url}",
            "summariser.api_key_env=null",
        ]
        deliberate(tmp_path, faults, *other, "summariser.max_tokens=99", "task.summary_tokens=50")
    asked = {(seen.body["model"], SUMMARISING in prompt_of(seen.body), seen.body["max_tokens"]) for seen in faults.seen}
    assert asked == {("tiny", False, 8192), ("small", True, 50)}


# Drafts


def say_of_drafts(body: dict[str, Any]) -> Any:
    """Attempts name their draft, which the seed tells, and box 3; the second draft does not end its thinking."""
    if "Drafts:" in prompt_of(body):
        return answer("notes", usage(20, 5))
    number = body["seed"] // 10_000_000
    return answer(f"draft {number} " if number == 1 else boxed(3, f"draft {number}"), usage(10, 7))


def test_drafts_are_written_at_once_from_the_same_memory_and_summed_up_together(tmp_path: Path) -> None:
    settings = ("task.methods=[drafts]", "task.drafts=3", "backend.batch=true", "backend.batch_poll_s=0.02")
    with BatchServer(say=say_of_drafts).running() as faults:
        result, rows = deliberate(tmp_path, faults, *settings)
        # An attempt, two more drafts, their summary; the same again, on what was handed on; an attempt that ends the chain.
        assert [len(faults.files[each["input_file_id"]].splitlines()) for each in faults.batches.values()] == [
            1,
            2,
            1,
            1,
            2,
            1,
            1,
        ]
        assert [seen.body["seed"] for seen in faults.seen if "Drafts:" not in seen.prompt] == [
            0, 10_000_000, 20_000_000, 1, 10_000_001, 20_000_001, 2,
        ]  # fmt: skip
        first, *same, summary, second, third, fourth, _, last = faults.prompts
    assert same == [first] * 2
    assert summary == (
        "Summarise these drafts of a solution to a problem, which were written independently of each other: the approaches, the "
        "answer that each reaches, where they agree, and at which step they part. Keep to what is written; do not solve the "
        "problem yourself.\n\nProblem:\nWhat is 3+0?\n\n"
        "Drafts:\nDRAFT 1:\ndraft 0\n\nDRAFT 2:\ndraft 1\n\nDRAFT 3:\ndraft 2"
    )
    assert "previous attempts:\n\nATTEMPT 1:\nnotes\n\nFirst judge" in second
    assert (third, fourth) == (second, second)
    assert "ATTEMPT 1:\nnotes\n\nATTEMPT 2:\nnotes\n\nFirst judge" in last
    # An answer costs its own attempt and all before it; drafts beside it, and the summary, are the next one's to pay for.
    assert [(row["cum_tokens"], row.get("draft_tokens"), row["summary_tokens"]) for row in rows] == [
        (26, 14, 5),
        (52, 14, 5),
        (59, None, None),
    ]
    assert [each.tokens for each in curves(rows)["drafts"]] == [7, 33, 59]
    assert result["calls"]["tokens"]["completion"] == 59
    assert [row.get("draft") for row in read_ledger(tmp_path / "o")] == [None, 1, 2, None, None, 1, 2, None, None]


def test_a_chains_tokens_are_shared_out_among_its_drafts(tmp_path: Path) -> None:
    with FaultServer(say=say_of_drafts).running() as faults:
        settings = ("task.methods=[drafts]", "task.drafts=3", "task.iterations=1", "task.chain_tokens=40")
        _, rows = deliberate(tmp_path, faults, *settings)
        assert [seen.body["max_tokens"] for seen in faults.seen] == [40, 16, 16, 19, 14]
    assert [row["cum_tokens"] for row in rows] == [26, 33]


DRAFTS_ENDS = {
    "whole": ["draft 0", "draft 1", "draft 2"],
    "drop": ["draft 0", "draft 2"],
}


@pytest.mark.parametrize("no_end", DRAFTS_ENDS)
def test_a_draft_whose_thinking_does_not_end_is_summed_up_or_not(tmp_path: Path, no_end: str) -> None:
    with FaultServer(say=say_of_drafts).running() as faults:
        settings = ("task.methods=[drafts]", "task.drafts=3", "task.iterations=1", f"task.no_end={no_end}")
        deliberate(tmp_path, faults, *settings)
        (summary,) = [seen.prompt for seen in faults.seen if "Drafts:" in seen.prompt]
    drafts = "\n\n".join(f"DRAFT {n}:\n{text}" for n, text in enumerate(DRAFTS_ENDS[no_end], start=1))
    assert summary.endswith(f"Drafts:\n{drafts}")


def test_a_draft_that_fails_ends_its_chain_and_what_was_written_is_counted(tmp_path: Path) -> None:
    def say(body: dict[str, Any]) -> Any:
        return answer(boxed(3), usage(10, 7))

    with FaultServer(say=say).running() as faults:
        deliberate(tmp_path / "a", faults, "task.methods=[drafts]", "task.drafts=2", "task.iterations=1")
        prompt = faults.prompts[0]
    with FaultServer({prompt: [Act(body=answer(boxed(3), usage(10, 7))), error(400, "too long")]}, say).running() as faults:
        settings = ("task.methods=[drafts]", "task.drafts=2", "task.iterations=1", "task.max_errors=1")
        _, rows = deliberate(tmp_path / "b", faults, *settings)
    assert [(row["answer"], row["error"], row["cum_tokens"]) for row in rows] == [("3", "400: too long", 7)] * 2


# Budgets


def test_a_chain_keeps_to_its_tokens_and_to_its_money(tmp_path: Path) -> None:
    with FaultServer(say=say_by_turn(boxed(5))).running() as faults:
        result, rows = deliberate(tmp_path / "a", faults, "task.chain_tokens=20", "task.iterations=9")
    assert result["stops"]["whole"] == {"budget": 1}
    assert [seen.body["max_tokens"] for seen in faults.seen] == [20, 13, 8, 1]  # what is left of 20 after 7, 5, 7 and 5 tokens
    prices = ("backend.price_input=0", "backend.price_output=1000000")  # a dollar a token
    with FaultServer(say=say_by_turn(boxed(5))).running() as faults:
        result, rows = deliberate(tmp_path / "b", faults, *prices, "task.chain_usd=13", "task.step_usd=8")
    assert [seen.body["max_tokens"] for seen in faults.seen] == [8, 6, 1]
    assert (result["stops"]["whole"], rows[-1]["cum_usd"]) == ({"budget": 1}, 19.0)  # this server writes more than it may


CAPS = {
    "tokens": (
        "backend.budget_tokens",
        450,
        r"^backend\.budget_tokens: given 450, spent \d+ tokens: the next call could exceed it",
    ),
    "money": (
        "backend.budget_usd",
        0.00045,
        r"^backend\.budget_usd: given 0\.00045, spent 0\.000\d US dollars: the next call could",
    ),
}


@pytest.mark.parametrize("in_flight", [1, 8])
@pytest.mark.parametrize("kind", CAPS)
def test_the_cap_of_a_folder_stops_within_one_call_of_it_and_a_larger_one_goes_on(
    tmp_path: Path, kind: str, in_flight: int
) -> None:
    name, cap, message = CAPS[kind]
    settings = ("backend.max_tokens=50", f"backend.max_in_flight={in_flight}", "task.methods=[first_k]", "task.k=2")
    prices = ("backend.price_input=1", "backend.price_output=1")  # a millionth of a dollar a token
    with FaultServer(say=say_by_turn(boxed(3))).running() as faults:
        with pytest.raises(BudgetSpent, match=message):
            deliberate(tmp_path, faults, *settings, *prices, f"{name}={cap}", count=9)
        spent = sum(row["tokens"]["prompt"] + row["tokens"]["completion"] for row in read_ledger(tmp_path / "o"))
        # The longest prompt has 349 bytes, and a call counts beforehand as those, 64 tokens around them and 50 written.
        assert max(len(prompt_of(seen.body).encode()) for seen in faults.seen) <= 349
        assert 450 - (349 + 64 + 50) < spent <= 450
        asked = len(faults.seen)
        assert 0 < asked < 27
        result, _ = deliberate(tmp_path, faults, *settings, *prices, f"{name}=99999", count=9)
    assert len(faults.seen) == result["calls"]["calls"] == 27


# Failures


def test_a_chain_that_fails_keeps_what_it_has_and_too_many_leave_no_result(tmp_path: Path) -> None:
    def say(body: dict[str, Any]) -> Any:
        return answer(boxed(3))

    def plan(prompts: list[str]) -> dict[str, list[Act]]:
        return {prompt: [error(400, "too long")] * 9 for prompt in prompts}

    with FaultServer(say=say).running() as faults:
        deliberate(tmp_path / "a", faults, "task.methods=[answer_only]", "task.iterations=1", count=2)
        second = [prompt for prompt in reasoning_prompts(faults) if "ATTEMPT" in prompt and "3+1" in prompt]
    with FaultServer(plan(second), say).running() as faults:
        settings = ("task.methods=[answer_only]", "task.iterations=1")
        with pytest.raises(DeliberationError, match=r"^1 of 4 chains ended in an error, more than task\.max_errors"):
            deliberate(tmp_path / "b", faults, *settings, count=2)
        result, rows = deliberate(tmp_path / "b", faults, *settings, "task.max_errors=0.5", count=2)
    failed = [row for row in rows if row["gold"] == "4"]
    assert [(row["answer"], row["error"], row["stop_reason"]) for row in failed] == [("3", "400: too long", "error")] * 2
    assert result["stops"]["answer_only"] == {"fixed": 1, "error": 1}


def weather() -> list[Act]:
    """Everything that may pass, as it meets a run: each once, before the call is answered."""
    date = format_datetime(datetime.now(UTC), usegmt=True)
    return [
        error(429, "slow down", Retry_After="0.01"), error(429, "slow down", Retry_After=date), error(500, "oops"),
        Act(503, body="<html>busy</html>"), Act(is_cut=True), Act(body={"choices": []}), Act(body='{"choices": [{"mess'),
        Act(wait=2.5, body=answer("late")), Act(pause=0.1, body=answer("dribbled")),
    ]  # fmt: skip


def test_bad_weather_changes_nothing_but_the_ledger(tmp_path: Path) -> None:
    """Retry-After in both forms, errors, a lost connection, broken JSON, slow answers: the rows are those of a calm day."""
    settings = ("task.methods=[whole,answer_only]", "backend.timeout_s=1.5", "task.iterations=3")
    with FaultServer(say=say_by_turn(boxed(5), boxed(3))).running() as faults:
        quiet, calm = deliberate(tmp_path / "calm", faults, *settings, count=2)
        asked = list(dict.fromkeys(seen.prompt for seen in faults.seen))
    acts = weather()
    plan = {prompt: [act] for prompt, act in zip(asked, acts, strict=False)}
    assert len(plan) == len(acts) == 9
    with FaultServer(plan, say_by_turn(boxed(5), boxed(3))).running() as faults:
        result, stormy = deliberate(tmp_path / "storm", faults, *settings, count=2)
    assert stormy == calm
    calls, answered = result["calls"], quiet["calls"]["calls"]
    assert (calls["calls"], calls["failed"], calls["answered"]) == (answered + 9, 9, answered)
    assert calls["estimated"] == 5  # no connection, no choices, no JSON, two too slow: each may be billed
    ledger = read_ledger(tmp_path / "storm" / "o")
    keys = Counter(row["key_sha256"] for row in ledger if row["error"] is None)
    assert set(keys.values()) == {1}
    assert {row["attempt"] for row in ledger} == {1, 2}


def test_a_prompt_that_is_too_long_is_asked_once(tmp_path: Path) -> None:
    with FaultServer(say=say_by_turn(boxed(3))).running() as faults:
        deliberate(tmp_path / "a", faults, "task.iterations=1")
        first = faults.seen[0].prompt
    with FaultServer({first: [error(400, "context length is 8", "context_length_exceeded")] * 9}).running() as faults:
        result, (row, _) = deliberate(tmp_path / "b", faults, "task.iterations=1", "task.max_errors=1")
        assert [seen.prompt for seen in faults.seen] == [first]
    assert (row["answer"], row["error"], row["cum_tokens"]) == (None, "400: context length is 8", 0)
    assert (result["calls"]["failed"], result["calls"]["estimated"]) == (1, 0)


def test_a_reply_without_usage_counts_as_the_most_it_can_be(tmp_path: Path) -> None:
    with FaultServer(say=lambda body: answer(boxed(3), usage=None)).running() as faults:
        _, rows = deliberate(tmp_path, faults, "task.methods=[answer_only]", "task.iterations=1", "backend.max_tokens=30")
    assert [row["cum_tokens"] for row in rows] == [30, 60]


# What is refused before anything is asked


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["task.methods=[wait]"],
            r"^task\.methods: given wait; the backend cannot continue a reply that is begun; allowed: a back",
        ),
        (["task.hand_on=reply"], r"^task\.methods: given hand_on=reply; the backend cannot continue"),
        (["task.step_tokens=9000"], r"^task\.step_tokens: given 9000; .* allowed: up to backend\.max_tokens=8192$"),
        (["task.chain_usd=1"], r"^task\.chain_usd: given 1\.0; money is counted only with prices"),
        (["task.methods=[best]"], r"^task\.methods: given best; allowed: whole, chunked, "),
        (["task.again=nope"], r"^task\.again: given nope; there is no such prompt; allowed: different_v1, "),
        (["task.summarise=nope"], r"^task\.summarise: given nope; there is no such prompt; allowed: approach_v1, "),
        (["task.memory=some"], r"^task\.memory: given some; allowed: all, last, window, running"),
        (["task.stop=oracle"], r"^task\.stop: given oracle; allowed: fixed, agreement, no_change, oracle_stop$"),
        (
            ["task.hand_on=reply", "backend.prefill=vllm", "task.memory=window"],
            r"^task\.memory: given window; a reply begins with",
        ),
        (["task.samples=null", "backend.temperature=0"], r"^task\.chains: given 1; with temperature=0 all chains are the same"),
        (["task.samples=2", "backend.temperature=0"], r"^task\.chains: given 1; with temperature=0 all chains are the same"),
        (
            ["task.think_end=''"],
            r"^task\.think_end: given nothing; allowed: a text that ends thinking, such as </think>, or auto$",
        ),
        (["task.problems=0"], r"^task\.problems: given 0; allowed: 1 and more$"),
        (["task.agree=1"], r"^task\.agree: given 1; allowed: 2 and more$"),
        (["task.drafts=1"], r"^task\.drafts: given 1; allowed: 2 and more$"),
        (["task.overlap=1000"], r"^task\.overlap: given 1000; allowed: 0 to below chunk=1000$"),
        (["task.summary_temperature=-1"], r"^task\.summary_temperature: given -1\.0; allowed: 0 and more$"),
        (
            ["task.summary_temperature=0", "task.methods=[first_k,answer_only]"],
            r"^task\.summary_temperature: given 0\.0; whoever thinks writes no summary; allowed: with chunked, drafts, running, "
            r"segment, whole, and without a summariser=$",
        ),
        (
            ["task.summary_temperature=0", "summariser=vllm", "summariser.model=m"],
            r"^task\.summary_temperature: given 0\.0; whoever thinks writes no summary; allowed: ",
        ),
        (["task.no_end=none"], r"^task\.no_end: given none; allowed: whole, drop, error$"),
        (
            ["task.no_end=drop", "task.methods=[answer_only]"],
            r"^task\.no_end: given drop; none of the methods looks for an end of thinking; allowed: whole, or a method such as",
        ),
        (["task.share=0"], r"^task\.share: given 0\.0; allowed: numbers above 0, up to 1$"),
        (["task.chains=2"], r"^task\.samples: given 1; allowed: chains=2 and more"),
        (["task.methods=[first_k]", "task.memory=running"], r"^task\.memory: given running; a model must carry the text on"),
        (["backend.prefill=always"], r"^backend\.prefill: given always; allowed: none, message, vllm$"),
        (["backend.api=grpc"], r"^backend\.api: given grpc; allowed: chat, completions$"),
    ],
)
def test_a_wrong_setting_costs_no_call(tmp_path: Path, overrides: list[str], message: str) -> None:
    with FaultServer().running() as faults:
        with pytest.raises(ConfigError, match=message):
            deliberate(tmp_path, faults, *overrides)
        assert faults.seen == []
    assert not (tmp_path / "o" / "calls.jsonl").exists()


def test_a_missing_key_is_said_with_the_name_of_its_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FIREWORKS_API_KEY", raising=False)
    dataset = ["dataset=file", f"dataset.path={problems(tmp_path)}", f"out={tmp_path / 'o'}"]
    for who, other in (("backend", []), ("summariser", ["backend=vllm", "backend.model=m"])):
        made = job("eval", ["task=summarize", f"{who}=fireworks", f"{who}.model=m", *other, *dataset, "overwrite=true"])
        with pytest.raises(
            CallError, match=rf"^{who}\.api_key_env: the environment has no variable FIREWORKS_API_KEY; allowed: "
        ):
            made.config.task.run(made)


def test_who_is_to_think_must_be_said(tmp_path: Path) -> None:
    made = job("eval", ["task=summarize", "dataset=file", f"dataset.path={problems(tmp_path)}"])
    with pytest.raises(ConfigError, match=r"^backend: given nothing; allowed: local, openai, vllm, fireworks, together, or run="):
        made.config.task.run(made)
    with pytest.raises(ConfigError, match=r"^backend: given Local; this task asks no model to deliberate; allowed: none$"):
        job("eval", ["task=problems", "dataset=stories", "backend=local", "backend.path=x"])
