"""A run of this laboratory that deliberates: it answers as when it is graded, goes on from what it is given, and repeats."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import evaluate, result, rows, train

from latent_lab.calls.client import Request
from latent_lab.config import ConfigError, EvalConfig
from latent_lab.deliberation.lab import Lab, load
from latent_lab.job import job


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train(folder, "stage=cot", "stage.epochs=[20]", "name=text", "optim.lr=3e-3")
    train(
        folder,
        "stage=icot",
        "stage.epochs=[10]",
        "stage.tokens_per_epoch=1",
        "stage.keep_positions=true",
        "name=kept",
        "optim.lr=3e-3",
    )
    train(folder, "stage=cot", "stage.epochs=[1]", "name=rotary", "model.architecture=llama")
    train(folder, "stage=cot", "stage.epochs=[1]", "name=prefix", "peft=prefix")
    train(folder, "stage=planning", "plan=arithmetic", "stage.text_sees=segment", "stage.epochs=[1]", "name=sparse")
    train(folder, "stage=coconut", "stage.stages=[2]", "stage.curriculum=false", "stage.epochs=[2]", "name=latent")
    return folder


def config_of(run: Path) -> EvalConfig:
    config: EvalConfig = job("eval", [f"run={run}", "device=cpu"]).config
    return config


def requests_of(config: EvalConfig, **settings: Any) -> list[Request]:
    from latent_lab.grading.session import trained_config

    problems = trained_config(config.run_folder).dataset.load("test")
    return [Request(({"role": "user", "content": problem.question},), **settings) for problem in problems]


@pytest.fixture(scope="module")
def lab(outputs: Path) -> Lab:
    return load(config_of(outputs / "text"), 0.0, 0, 64)


@pytest.mark.parametrize("name", ["text", "latent", "kept"])
def test_greedily_it_writes_what_it_writes_when_it_is_graded(outputs: Path, name: str) -> None:
    config = config_of(outputs / name)
    evaluate(outputs / name, f"out={outputs / ('graded-' + name)}", "task.floors=false")
    graded = [row["output"] for row in rows(outputs / f"graded-{name}" / "samples.jsonl")]
    lab = load(config, 0.0, 0, 64)
    lab.max_tokens = lab.solver.max_new_tokens + lab.num_thoughts
    assert [done.text for done in lab.answer(requests_of(config))] == graded


def test_it_goes_on_from_what_its_reply_begins_with(outputs: Path, lab: Lab) -> None:
    asked = requests_of(config_of(outputs / "text"))
    whole = lab.answer(asked)
    halves = lab.answer([replace(each, max_tokens=4) for each in asked])
    assert {(done.usage.completion, done.finish_reason) for done in halves} == {(4, "length")}
    rest = lab.answer([replace(each, prefix=done.text or "") for each, done in zip(asked, halves, strict=True)])
    same = [
        (a.text or "") + (b.text or "") == c.text
        for a, b, c in zip(halves, rest, whole, strict=True)
        if c.finish_reason == "stop"
    ]
    assert all(same)


def test_a_sample_depends_on_its_number_and_not_on_its_batch(outputs: Path, lab: Lab) -> None:
    hot = replace(lab, temperature=1.0)
    asked = [replace(each, sample=n) for each in requests_of(config_of(outputs / "text")) for n in (0, 1)]
    together = hot.answer(asked)
    assert hot.answer(asked[3:4]) == together[3:4]
    assert hot.answer(list(reversed(asked))) == list(reversed(together))
    assert together[0].text != together[1].text or together[2].text != together[3].text


def test_a_run_draws_from_the_likeliest_alone(outputs: Path, lab: Lab) -> None:
    asked = requests_of(config_of(outputs / "text"))
    assert (
        replace(lab, temperature=3.0, top_k=1).answer(asked) == lab.answer(asked) != replace(lab, temperature=3.0).answer(asked)
    )
    assert replace(lab, temperature=3.0, top_p=1e-6).answer(asked) == lab.answer(asked)
    assert lab.answer([replace(each, temperature=3.0) for each in asked]) == replace(lab, temperature=3.0).answer(asked)


@pytest.mark.parametrize("name", ["text", "latent"])
def test_samples_of_a_question_are_read_and_thought_through_once(outputs: Path, name: str) -> None:
    config = config_of(outputs / name)
    lab = load(config, 0.8, 0, 24)
    alone = [replace(each, sample=n) for each in requests_of(config)[:3] for n in range(4)]
    separate = [lab.answer([each])[0] for each in alone]
    widths: list[int] = []
    embeddings = lab.solver.reasoner.model.get_input_embeddings()
    handle = embeddings.register_forward_hook(lambda _, given, out: widths.append(len(given[0])))
    together = lab.answer(alone)
    handle.remove()
    assert together == separate
    assert len({done.text for done in together}) > 3
    assert widths[0] == 3  # the prompts, with all passes of their slots; then a token of each sample that has not ended
    assert widths[1] == 12
    read = [done.prefilled for done in together]
    assert [count for count in read if count] == read[::4]
    assert read[::4] == [done.usage.prompt + lab.num_thoughts for done in together[::4]]
    assert [done.prefilled for done in separate] == [done.usage.prompt + lab.num_thoughts for done in separate]


@pytest.mark.parametrize("name", ["text", "rotary", "latent", "prefix", "sparse"])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_question_is_read_once_for_what_several_chains_have_below_it(outputs: Path, name: str, temperature: float) -> None:
    """Where a thought stands between the question and what a reply begins with, or not all is seen by all, it is read whole."""
    config = config_of(outputs / name)
    lab = load(config, temperature, 0, 24)
    below = ("", "1 + 2 = 3\n", "1 + 2 = 3\n4 + ", "9 + 9 = 18\n")
    asked = [replace(each, sample=n, prefix=text) for each in requests_of(config)[:3] for n, text in enumerate(below)]
    separate = [lab.answer([each])[0] for each in asked]
    widths: list[tuple[int, ...]] = []
    embeddings = lab.solver.reasoner.model.get_input_embeddings()
    handle = embeddings.register_forward_hook(lambda _, given, out: widths.append(tuple(given[0].shape)))
    together = lab.answer(asked)
    handle.remove()
    assert together == separate
    lengths = [len(prompt.ids) for prompt in lab.prompts(asked)]
    if name in ("latent", "prefix", "sparse"):
        assert [done.prefilled for done in together] == lengths
        return
    alike = lengths[0] - 1  # every prompt keeps a token of its own, and the first has nothing below its question
    assert {lengths[4], lengths[8]} == {lengths[0]}
    assert [done.prefilled for done in together] == [lengths[0], *(length - alike for length in lengths[1:4])] * 3
    assert widths[:2] == [(3, alike), (12, max(lengths) - alike - 1)]


SMALL = ("task=summarize", "task.iterations=2", "task.chains=2", "task.samples=4", "task.problems=5")


def test_the_default_iterates_votes_and_does_both(outputs: Path, tmp_path: Path) -> None:
    found = evaluate(outputs / "text", *SMALL, f"out={tmp_path / 'o'}")
    assert list(found["curves"]) == [
        "first_k",
        "first_k, then vote",
        "vote of first attempts",
        "any of first attempts right (knows gold)",
        "half of first attempts right (knows gold)",
        "all of first attempts right (knows gold)",
    ]
    assert [len(line) for line in found["curves"].values()] == [3, 1, 4, 4, 4, 4]
    assert (found["num_problems"], found["num_chains"], found["num_samples"], found["hand_on"]) == (5, 10, 4, "reply")
    assert set(found["equal"]) == {"one chain", "all chains"}
    samples = rows(tmp_path / "o" / "samples.jsonl")
    assert (
        len({(row["method"], row["id"], row["chain"], row["iteration"]) for row in samples}) == len(samples) == 2 * 5 * 3 + 4 * 5
    )
    # What was kept of a trace begins the next one.
    first, second = (
        row
        for row in samples
        if (row["method"], row["chain"], row["id"]) == ("first_k", 0, samples[0]["id"]) and row["iteration"] < 2
    )
    assert first["reasoning"].startswith(first["summary"])
    assert second["reasoning"].startswith(first["summary"])
    # Chains share their first attempts with those that vote.
    assert max(row["reasoning_tokens"] for row in samples) <= longest(outputs / "text")
    firsts = {(row["id"], row["chain"]): row["reasoning"] for row in samples if row["method"] == "samples"}
    assert all(
        firsts[row["id"], row["chain"]] == row["reasoning"]
        for row in samples
        if row["method"] == "first_k" and row["iteration"] == 0
    )
    page = (tmp_path / "o" / "report.html").read_text()
    assert "At the tokens of one chain" in page
    assert "vote of first attempts" in page
    points = (tmp_path / "o" / "tables.csv").read_text().splitlines()
    assert (points[0], len(points)) == ("recipe,size,tokens,n,accuracy,low,high", 1 + 3 + 1 + 4 + 4 + 4 + 4)
    for name in ("report.html", "tokens.png", "iterations.png", "tables.csv", "calls.jsonl", "provenance.json"):
        assert (tmp_path / "o" / name).stat().st_size > 0


def test_the_same_command_in_other_batches_gives_the_same_bytes_and_goes_on_where_it_was_broken_off(
    outputs: Path, tmp_path: Path
) -> None:
    for name, size in {"a": 256, "b": 7}.items():
        evaluate(outputs / "text", *SMALL, f"out={tmp_path / name}", f"batch_size={size}")
    assert (tmp_path / "a" / "samples.jsonl").read_bytes() == (tmp_path / "b" / "samples.jsonl").read_bytes()
    stored = {name: {key: value for key, value in result(tmp_path / name).items() if key != "seconds"} for name in ("a", "b")}
    assert stored["a"] == stored["b"]
    # Without its result and half its ledger, the same command computes the other half.
    whole = (tmp_path / "b" / "calls.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "b" / "result.json").unlink()
    (tmp_path / "b" / "calls.jsonl").write_text("".join(whole[: len(whole) // 2]) + whole[-1][:20])
    evaluate(outputs / "text", *SMALL, f"out={tmp_path / 'b'}", "batch_size=7")
    assert (tmp_path / "a" / "samples.jsonl").read_bytes() == (tmp_path / "b" / "samples.jsonl").read_bytes()
    keys = [json.loads(line)["key_sha256"] for line in (tmp_path / "b" / "calls.jsonl").read_text().splitlines()]
    assert sorted(keys) == sorted(json.loads(line)["key_sha256"] for line in whole)


def test_its_chains_go_on_in_another_folder_as_if_they_had_never_stopped(outputs: Path, tmp_path: Path) -> None:
    evaluate(outputs / "text", *SMALL, f"out={tmp_path / 'whole'}")
    replay = (f"task.replay={tmp_path / 'whole'}", "task.from_iteration=1")
    found = evaluate(outputs / "text", *SMALL, *replay, f"out={tmp_path / 'rest'}")
    whole, rest = (rows(tmp_path / name / "samples.jsonl") for name in ("whole", "rest"))
    assert [row | {"is_replayed": False} for row in rest] == whole
    assert {row["iteration"] for row in rows(tmp_path / "rest" / "calls.jsonl")} == {2}
    assert found["calls"]["calls"] == 2 * 5 - sum(row["is_carried"] for row in rest)
    assert (found["replayed"]["iteration"], found["replayed"]["attempts"]) == (1, 4 * 5 + 2 * 5)
    assert evaluate(outputs / "text", *SMALL, *replay, f"out={tmp_path / 'rest'}") == found


def test_its_samples_are_read_by_the_task_that_analyses_chains(outputs: Path, tmp_path: Path) -> None:
    found = evaluate(outputs / "text", *SMALL, f"out={tmp_path / 'o'}")
    made = job("eval", ["task=iterations", f"path={tmp_path / 'o' / 'samples.jsonl'}", f"out={tmp_path / 'again'}"])
    again = made.config.task.run(made)
    assert again["methods"] == found["methods"]


def longest(run: Path) -> int:
    """Tokens of the longest answer when a run is graded."""
    return int(json.loads((run / "checkpoint" / "latent.json").read_text())["max_new_tokens"])


def test_a_run_writes_as_long_as_it_is_told(outputs: Path, tmp_path: Path) -> None:
    few = ("task.methods=[longer]", "task.iterations=1", "task.chains=1", "task.samples=1", "task.problems=3")
    evaluate(outputs / "text", "task=summarize", *few, "backend=run", "backend.max_new_tokens=2", f"out={tmp_path / 'o'}")
    told = rows(tmp_path / "o" / "samples.jsonl")
    cut = [row for row in told if row["iteration"] == 0 and row["finish_reason"] == "length"]
    assert cut
    assert {row["reasoning_tokens"] for row in cut} == {2}
    for first, second in zip(told[:6:2], told[1:6:2], strict=True):
        assert second["is_carried"] or second["reasoning"].startswith(first["reasoning"])
    with pytest.raises(ConfigError, match=r"^backend\.max_new_tokens: given 0; allowed: 1 and more$"):
        evaluate(outputs / "text", "task=summarize", "backend=run", "backend.max_new_tokens=0")


def test_of_the_likeliest_token_alone_all_first_attempts_are_the_same(outputs: Path, tmp_path: Path) -> None:
    few = ("task.methods=[first_k]", "task.iterations=1", "task.chains=2", "task.samples=3", "task.problems=3")
    for number, (drawn, differ) in enumerate(
        (("backend.top_k=1", False), ("backend.top_p=1e-6", False), ("backend.top_k=9", True))
    ):
        evaluate(
            outputs / "text",
            "task=summarize",
            *few,
            "backend=run",
            "backend.temperature=3",
            drawn,
            f"out={tmp_path / str(number)}",
        )
        told = [row for row in rows(tmp_path / str(number) / "samples.jsonl") if row["iteration"] == 0]
        assert (len({row["reasoning"] for row in told}) > len({row["id"] for row in told})) is differ


def test_what_a_run_cannot_do_is_refused(outputs: Path) -> None:
    for overrides, message in (
        (
            ["task.methods=[whole]"],
            r"^task\.methods: given whole; a run of this laboratory writes no summaries; allowed: with a sum",
        ),
        (
            ["task.hand_on=prompt"],
            r"^task\.hand_on: given prompt; a run of this laboratory knows questions alone; allowed: reply$",
        ),
        (["backend=run", "backend.top_p=0"], r"^backend\.top_p: given 0\.0; allowed: shares above 0, up to 1$"),
        (["backend=run", "backend.top_k=0"], r"^backend\.top_k: given 0; allowed: 1 and more$"),
        (
            ["backend=run", "backend.top_k=5", "backend.temperature=0"],
            r"^backend\.top_k: given 5; with temperature=0 nothing is drawn; allowed: with a temperature above 0$",
        ),
        (["task.again=judge_v1"], r"^task\.again: given judge_v1; a reply that is begun follows the first prompt"),
        (["backend=local", "backend.path=x"], r"^run: given .*text; with this backend nobody asks the run; allowed: backend=run"),
    ):
        with pytest.raises(ConfigError, match=message):
            evaluate(outputs / "text", "task=summarize", *overrides)


def test_other_weights_in_the_same_folder_are_another_model(tmp_path: Path) -> None:
    from chatmodel import save_chat_model

    from latent_lab.deliberation.backends import Local

    config = job("eval", ["task=problems", "dataset=stories"]).config
    first, same, other = (
        Local(path=str(save_chat_model(tmp_path / "model", words))).identity(config) for words in (("7",), ("7",), ("7", "8"))
    )
    assert list(first) == ["backend.weights"]
    assert first == same != other


def test_a_local_model_draws_from_the_likeliest_alone(tmp_path: Path) -> None:
    from tiny import save_hub_model

    from latent_lab.calls.ledger import open_ledger
    from latent_lab.deliberation.backends import Local, LocalSummariser

    config = job("eval", ["task=problems", "dataset=stories", "device=cpu"]).config
    asked = [Request(({"role": "user", "content": "one"},), sample) for sample in range(3)]
    path = str(save_hub_model(tmp_path / "model", "gpt2"))

    def said(**settings: Any) -> list[str | None]:
        backend = Local(path=path, max_tokens=8, **settings)
        with open_ledger(tmp_path / "calls") as ledger, backend.opened(ledger, config) as opened:
            return [done.text for done in opened.caller.complete(asked)]

    greedy, hot = said(temperature=0.0), said(temperature=5.0)
    assert said(temperature=5.0, top_k=1) == greedy != hot  # the same ledger: none of these calls is another's
    assert said(temperature=5.0, top_p=1e-6) == greedy
    with pytest.raises(
        ValueError, match=r"^top_p=0\.9: with temperature=0 nothing is drawn; allowed: with a temperature above 0$"
    ):
        LocalSummariser(path=path, temperature=0.0, top_p=0.9)
