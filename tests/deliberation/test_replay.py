"""Replay: chains that go on from another evaluation pay for nothing of it, and only from what was made the same way."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from faultserver import FaultServer, answer, error

from latent_lab.calls.ledger import read_ledger
from latent_lab.config import ConfigError
from latent_lab.deliberation.replay import NEEDED
from latent_lab.files import write_lines
from latent_lab.job import job
from latent_lab.problems import DataError
from latent_lab.report.summarize import deliberated, described, identity_of, prepared

SUMMARISING = "Summarise this attempt"
Row = dict[str, Any]


def prompt_of(body: dict[str, Any]) -> str:
    return str(body["messages"][0]["content"])


def say(body: dict[str, Any]) -> Any:
    """An attempt costs 7 tokens and boxes its seed's and its turn's number; notes cost 5 and name what they are about."""
    prompt, usage = prompt_of(body), {"prompt_tokens": 10, "completion_tokens": 7}
    if SUMMARISING in prompt:
        return answer(f"notes of {body['model']} on {prompt[-5:]}", usage | {"completion_tokens": 5})
    return answer(f"turn {prompt.count('ATTEMPT ')}</think>\\boxed{{{body['seed'] % 3 + prompt.count('ATTEMPT ')}}}", usage)


def made(folder: Path, faults: FaultServer, out: str, *overrides: str, question: str = "What is 3+0?") -> Any:
    path = folder / "problems.jsonl"
    path.write_text(json.dumps({"question": question, "answer": "3"}) + "\n")
    server = ["backend=openai", "backend.model=tiny", f"backend.base_url={faults.base_url}", "backend.api_key_env=null"]
    prices = ["backend.price_input=0", "backend.price_output=1000000"]  # a dollar a token
    small = ["task.chains=2", "task.samples=3", "task.iterations=2", "backend.max_attempts=1"]
    dataset = ["dataset=file", f"dataset.path={path}", f"out={folder / out}"]
    return job("eval", ["task=summarize", *server, *prices, *small, *dataset, *overrides])


def deliberate(asked: Any) -> list[Row]:
    """What a command does up to its rows, as it stores them."""
    config, folder = asked.config, Path(asked.config.out)
    plan, problems = prepared(config.task, config)
    identity = identity_of(plan, problems, asked)
    rows, _ = deliberated(plan, problems, folder, config)
    (folder / "config.yaml").write_text(yaml.safe_dump({**asked.plain, **identity}))
    write_lines(folder / "samples.jsonl", rows)
    described(plan, rows)
    return rows


def bare(rows: list[Row]) -> list[Row]:
    return [{key: value for key, value in row.items() if key != "is_replayed"} for row in rows]


@pytest.mark.parametrize("upto", [0, 1])
def test_the_rest_of_a_chain_is_as_if_it_had_never_stopped(tmp_path: Path, upto: int) -> None:
    with FaultServer(say=say).running() as faults:
        whole = deliberate(made(tmp_path, faults, "whole"))
        # Three first attempts, of which two go on; of each of these two notes and two more attempts.
        assert len(faults.seen) == 3 + 2 * 4
        replay = ("task.samples=null", f"task.replay={tmp_path / 'whole'}", f"task.from_iteration={upto}")
        asked = made(tmp_path, faults, "rest", *replay)
        rest = deliberate(asked)
    assert bare(rest) == bare(whole)
    assert len(read_ledger(tmp_path / "rest")) == {0: 8, 1: 4}[upto]  # what comes after attempt n, its note included
    plan, _ = prepared(asked.config.task, asked.config)
    taken = {0: (3, 21), 1: (5, 21 + 2 * (5 + 7))}[upto]
    assert described(plan, rest)["replayed"] == {
        "from": str(tmp_path / "whole"), "iteration": upto, "changed": [],
        "attempts": taken[0], "tokens": taken[1], "cost_usd": float(taken[1]),
    }  # fmt: skip


def test_further_drafts_are_taken_with_the_note_on_them(tmp_path: Path) -> None:
    drafts = ("task.methods=[drafts]", "task.drafts=2", "task.chains=1", "task.samples=1")
    with FaultServer(say=say).running() as faults:
        whole = deliberate(made(tmp_path, faults, "whole", *drafts))
        assert len(faults.seen) == 7  # three attempts; two notes, each on another draft
        asked = made(tmp_path, faults, "rest", *drafts, f"task.replay={tmp_path / 'whole'}", "task.from_iteration=1")
        rest = deliberate(asked)
    assert bare(rest) == bare(whole)
    assert len(read_ledger(tmp_path / "rest")) == 3
    plan, _ = prepared(asked.config.task, asked.config)
    taken = described(plan, rest)["replayed"]
    assert (taken["attempts"], taken["tokens"], taken["cost_usd"]) == (2, 28, 28.0)


def test_from_first_attempts_any_method_goes_on_and_answers_are_looked_for_anew(tmp_path: Path) -> None:
    with FaultServer(say=say).running() as faults:
        first = deliberate(made(tmp_path, faults, "first", "task.methods=[first_k]"))
        faults.seen.clear()
        other = ("task.methods=[answer_only,whole]", "task.iterations=1", "task.extractors=[the_answer_is]")
        rows = deliberate(made(tmp_path, faults, "other", f"task.replay={tmp_path / 'first'}", *other))
    texts = {row["chain"]: row["reasoning"] for row in first if row["iteration"] == 0}
    assert {(row["method"], row["chain"]) for row in rows if row["is_replayed"]} == {
        *(("answer_only", n) for n in (0, 1)), *(("whole", n) for n in (0, 1)), *(("samples", n) for n in (0, 1, 2)),
    }  # fmt: skip
    assert all(row["reasoning"] == texts[row["chain"]] and row["answer"] is None for row in rows if row["is_replayed"])
    assert len(faults.seen) == 2 + 2 * 2


def test_what_is_said_to_change_changes_from_there_on(tmp_path: Path) -> None:
    with FaultServer(say=say).running() as faults:
        deliberate(made(tmp_path, faults, "first"))
        replay = (f"task.replay={tmp_path / 'first'}", "task.from_iteration=1", "task.changed=[backend.model]")
        rows = deliberate(made(tmp_path, faults, "other", "backend.model=large", *replay))
    chain = [row for row in rows if (row["method"], row["chain"]) == ("whole", 0)]
    assert [row["summary"] and row["summary"].split()[2] for row in chain] == ["tiny", "large", None]
    assert {row["model"] for row in read_ledger(tmp_path / "other")} == {"large"}


REFUSED = {
    "another model": (
        ["backend.model=large"],
        'its attempts were made otherwise: backend.model: stored "tiny", given "large"; allowed: the same, or to say what '
        "changes, as in task.changed=[backend.model]",
    ),
    "another prompt": (["task.reason=plain_v1"], "its attempts were made otherwise: reason_prompt: stored "),
    "a memory that made later attempts": (["task.memory=last"], 'its attempts were made otherwise: task.memory: stored "all", '),
}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first")
    with FaultServer(say=say).running() as faults:
        deliberate(made(folder, faults, "first"))
        (folder / "url").write_text(faults.base_url)
    return folder


def again(first: Path, *overrides: str, upto: int = 1, question: str = "What is 3+0?") -> None:
    """The same command, going on from the first; it is refused before anything is asked, so that nobody need answer."""
    with FaultServer().running() as faults:
        url = f"backend.base_url={(first / 'url').read_text()}"
        replay = (f"task.replay={first / 'first'}", f"task.from_iteration={upto}", url)
        asked = made(first, faults, "again", *replay, *overrides, question=question)
        try:
            asked.config.task.run(asked)
        finally:
            assert faults.seen == []
            assert not (first / "again").exists()


@pytest.mark.parametrize("what", REFUSED)
def test_attempts_that_were_made_otherwise_are_refused_with_what_differs(what: str, first: Path) -> None:
    overrides, said = REFUSED[what]
    with pytest.raises(ConfigError) as wrong:
        again(first, *overrides)
    assert str(wrong.value).startswith(f"task.replay: given {first / 'first'}; {said}")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task.methods=[answer_only]"], r"^task\.methods: given answer_only; .* no such chains to go on from; allowed: whole$"),
        (["task.chains=3"], r"^task\.chains: given 3; .* has fewer for problem problems-1; allowed: up to 2$"),
        (["task.samples=4"], r"^task\.samples: given 4; .* has fewer for problem problems-1; allowed: up to 3$"),
        (["task.changed=[task.chunky]"], r"^task\.changed: given task\.chunky; no attempt up to iteration 1 is made by it; allo"),
        (
            ["task.from_iteration=3", "task.iterations=4"],
            r"^task\.from_iteration: given 3; .* has the iterations 0 to 2; allowed",
        ),
    ],
)
def test_what_is_not_there_is_refused(overrides: list[str], message: str, first: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        again(first, *overrides)


def test_another_problem_is_refused(first: Path) -> None:
    with pytest.raises(ConfigError, match=r"problem problems-1 has another text or answer there; allowed: the same problems$"):
        again(first, question="What is 4-1?")


def test_settings_that_say_nothing_without_a_replay_are_refused() -> None:
    for override, message in (
        ("task.from_iteration=1", r"^task\.from_iteration: given 1; nothing is replayed; allowed: with task\.replay=FOLDER$"),
        ("task.changed=[backend]", r"^task\.changed: given \['backend'\]; nothing is replayed; "),
    ):
        with pytest.raises(ConfigError, match=message):
            job("eval", ["task=summarize", "dataset=stories", override])
    with pytest.raises(ConfigError, match=r"^task\.from_iteration: given 4; allowed: 0 to below iterations=4$"):
        job("eval", ["task=summarize", "dataset=stories", "task.replay=x", "task.from_iteration=4"])


def test_samples_of_an_older_version_are_refused(tmp_path: Path, first: Path) -> None:
    rows = [json.loads(line) for line in (first / "first" / "samples.jsonl").read_text().splitlines()]
    write_lines(tmp_path / "samples.jsonl", [{key: row[key] for key in row if key not in NEEDED} for row in rows])
    with FaultServer().running() as faults:
        asked = made(tmp_path, faults, "o", f"task.replay={tmp_path}")
    with pytest.raises(DataError, match=r"row 1: it has no problem_hash; allowed: what this version writes$"):
        prepared(asked.config.task, asked.config)


def test_an_attempt_that_failed_there_is_asked_now_unless_something_changes(tmp_path: Path) -> None:
    with FaultServer(say=say).running() as faults:
        deliberate(made(tmp_path, faults, "calm"))
        prompt = next(seen.prompt for seen in faults.seen if "ATTEMPT 1" in seen.prompt)
    with FaultServer({prompt: [error(400, "too long")]}, say).running() as faults:
        stormy = deliberate(made(tmp_path, faults, "stormy", "backend.max_in_flight=1"))
        assert {row["error"] for row in stormy} == {None, "400: too long"}
        faults.seen.clear()
        replay = ("backend.max_in_flight=1", f"task.replay={tmp_path / 'stormy'}", "task.from_iteration=1")
        whole = deliberate(made(tmp_path, faults, "mended", *replay))
        assert {row["error"] for row in whole} == {None}
        assert sum(row["is_replayed"] for row in whole if row["iteration"] == 1) == 1
        asked = made(tmp_path, faults, "changed", *replay, "backend.model=large", "task.changed=[backend]")
        with pytest.raises(
            ConfigError, match=r"^task\.changed: .* failed there and would be asked of what has changed; allowed: "
        ):
            deliberate(asked)
