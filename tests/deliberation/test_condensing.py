"""A written trace handed on as vectors: what they are, what they cost, and that nothing else of the trace is seen again."""

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from serving import environment
from tiny import evaluate, rows, think_again, train

from latent_lab.batching import collate
from latent_lab.calls.client import Request, TraceMemory
from latent_lab.calls.reply import Usage
from latent_lab.config import ConfigError, EvalConfig
from latent_lab.deliberation.condensing import averaged
from latent_lab.deliberation.lab import Lab, load
from latent_lab.grading.session import trained_config
from latent_lab.job import job
from latent_lab.report.summarize import deliberated, prepared

SLOTS = 2
QUESTIONS = ("12 + 34", "7 + 8", "90 + 11")
TRACE = "2 + 4 = 6\n1 + 3"
RUNS = {
    "text": ("stage=cot", "stage.epochs=[12]", "optim.lr=5e-3"),
    "rotary": ("stage=cot", "stage.epochs=[1]", "model.architecture=llama"),
    "latent": ("stage=coconut", "stage.stages=[2]", "stage.curriculum=false", "stage.epochs=[2]"),
    "odd": (
        *("stage=coconut", "stage.stages=[1]", "stage.curriculum=false", "stage.epochs=[2]"),
        *("stage.feedback=before_norm", "stage.match_norm=true", "stage.projection=mlp"),
    ),
    "pause": ("stage=pause", "stage.stages=[2]", "stage.curriculum=false", "stage.epochs=[1]"),
}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    for name, overrides in RUNS.items():
        train(folder, *overrides, f"name={name}")
    return folder


def lab_of(run: Path, *, temperature: float = 0.0, num_slots: int | None = None) -> Lab:
    lab = load(job("eval", [f"run={run}", "device=cpu"]).config, temperature, 0, 24 + (num_slots or 0))
    return lab if num_slots is None else replace(lab, solver=replace(lab.solver, num_slots=num_slots))


def asked(question: str, text: str | None = None, keep: int = SLOTS, by: str = "condensed", **settings: Any) -> Request:
    memory = {"is_zeroed": settings.pop("is_zeroed", False)}
    whose = settings.pop("whose", question)
    held = None if text is None else TraceMemory(whose, text, keep, by, **memory)
    return Request(({"role": "user", "content": question},), memory=held, **settings)


def states(lab: Lab, question: str, text: str) -> torch.Tensor:
    """Last states, without any latent loop, of a question and a text below it."""
    (prompt,) = lab.prompts([Request(({"role": "user", "content": question},), prefix=text)])
    model = lab.solver.reasoner.model
    with torch.no_grad():
        whole: torch.Tensor = model.base_model(torch.tensor([prompt.ids])).last_hidden_state[0]
    return whole


@pytest.mark.parametrize("run", ["text", "rotary"])
def test_a_run_that_never_thought_thinks_from_the_last_token_of_its_trace(outputs: Path, run: str) -> None:
    lab = lab_of(outputs / run)
    (one,) = lab.recollection.recalled([TraceMemory(QUESTIONS[0], TRACE, 1, "condensed")]).values()
    (three,) = lab.recollection.recalled([TraceMemory(QUESTIONS[0], TRACE, 3, "condensed")]).values()
    last = states(lab, QUESTIONS[0], TRACE)[-1:]
    assert (one.shape, three.shape) == ((1, 32), (3, 32))
    torch.testing.assert_close(one, last, rtol=0, atol=1e-5)
    torch.testing.assert_close(three[:1], last, rtol=0, atol=1e-5)


def test_averages_are_over_equal_parts_of_the_trace_and_of_nothing_else(outputs: Path) -> None:
    lab = lab_of(outputs / "text")
    count = len(lab.solver.backbone.tokenizer(TRACE)["input_ids"])
    of_trace = states(lab, QUESTIONS[0], TRACE)[-count:]
    for parts, wanted in ((1, of_trace.mean(0, keepdim=True)), (count, of_trace)):
        (made,) = lab.recollection.recalled([TraceMemory(QUESTIONS[0], TRACE, parts, "averaged")]).values()
        torch.testing.assert_close(made, wanted, rtol=0, atol=1e-5)
    (made,) = lab.recollection.recalled([TraceMemory(QUESTIONS[0], "", 2, "averaged")]).values()
    torch.testing.assert_close(made, states(lab, QUESTIONS[0], "")[-1:].repeat(2, 1), rtol=0, atol=1e-5)
    # By hand: parts of 4 are 2 and 2; of 3 in two, the middle belongs to both; of 1 in two, it is both.
    line = torch.tensor([[2.0], [4.0], [6.0], [10.0]])
    assert averaged(line, 2).flatten().tolist() == [3.0, 8.0]
    assert averaged(line[:3], 2).flatten().tolist() == [3.0, 5.0]
    assert averaged(line[:1], 2).flatten().tolist() == [2.0, 2.0]


@pytest.mark.parametrize("run", ["text", "latent", "odd"])
def test_what_is_heard_at_a_token_is_the_thought_that_a_slot_behind_it_is_fed(outputs: Path, run: str) -> None:
    lab = lab_of(outputs / run)
    laid = lab.laid(QUESTIONS, [3, 1, 2])
    batch = collate(laid, lab.solver.backbone.pad)
    with torch.no_grad():
        out = lab.solver.reasoner(batch.input_ids, batch.attention_mask, heard=True)
    for row, each in enumerate(laid):
        before = [place - 1 for place, token in enumerate(each.ids) if token == lab.solver.backbone.tokens.latent]
        torch.testing.assert_close(out.heard[row, before], out.thoughts[row, : each.num_slots])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_thoughts_over_no_trace_are_those_that_bare_slots_would_hold(outputs: Path, temperature: float) -> None:
    lab = lab_of(outputs / "text", temperature=temperature)
    plain = lab_of(outputs / "text", temperature=temperature, num_slots=3).answer([asked(each) for each in QUESTIONS])
    handed = lab.answer([asked(each, "", 3) for each in QUESTIONS])
    assert [done.text for done in handed] == [done.text for done in plain]
    assert handed != lab.answer([asked(each) for each in QUESTIONS])


@pytest.mark.parametrize("run", ["text", "latent"])
@pytest.mark.parametrize("by", ["condensed", "averaged"])
def test_no_vectors_are_the_plain_answer(outputs: Path, run: str, by: str) -> None:
    lab = lab_of(outputs / run, temperature=1.0)
    plain = lab.answer([asked(question) for question in QUESTIONS])
    assert lab.answer([asked(question, TRACE, 0, by) for question in QUESTIONS]) == plain
    assert lab.answer([asked(question, TRACE, 2, by) for question in QUESTIONS]) != plain


@pytest.mark.parametrize("run", ["text", "rotary", "latent", "odd"])
def test_a_memory_does_not_depend_on_what_stands_beside_it(outputs: Path, run: str) -> None:
    lab = lab_of(outputs / run, temperature=1.0)
    mixed = [
        asked(QUESTIONS[0]),
        asked(QUESTIONS[0], TRACE),
        asked(QUESTIONS[1], TRACE[:5], 3),
        asked(QUESTIONS[1], "", 1),
        asked(QUESTIONS[2], TRACE, 4, "averaged"),
        asked(QUESTIONS[2], TRACE, is_zeroed=True),
        asked(QUESTIONS[2], TRACE, whose=QUESTIONS[0], sample=3),
    ]
    together = lab.answer(mixed)
    fresh = lab_of(outputs / run, temperature=1.0)
    assert [fresh.answer([each])[0] for each in reversed(mixed)] == list(reversed(together))
    named = [each.memory for each in mixed if each.memory]
    for memory, vectors in lab.recollection.recalled(named).items():
        alone = fresh.recollection.recalled([memory])[memory]
        torch.testing.assert_close(vectors, alone, rtol=0, atol=1e-5)


def test_a_run_that_thinks_does_so_again_behind_its_trace(outputs: Path) -> None:
    """Question, start, two slots, end and the trace as ever; then the start marker and a slot for each vector."""
    lab = lab_of(outputs / "latent")
    memory = TraceMemory(QUESTIONS[0], TRACE, 3, "condensed")
    trace = lab.recollection.traces([memory])
    (read,) = lab.recollection.readings([memory], trace)
    tokens, (prompt,) = lab.solver.backbone.tokens, lab.prompts([asked(QUESTIONS[0], prefix=TRACE)])
    assert read.ids == (*prompt.ids, tokens.start, tokens.latent, tokens.latent, tokens.latent)
    assert prompt.ids[-len(trace[0]) :] == tuple(trace[0])
    assert (prompt.num_slots, read.num_slots) == (SLOTS, SLOTS + 3)
    # A completion for it: what was read, and a token for each vector; nothing is written.
    (done,) = lab.condense([asked(QUESTIONS[0], TRACE, 3)])
    assert (done.text, done.finish_reason, done.usage) == ("", "stop", Usage(len(read.ids) - 3, 0, 3, 3))
    (done,) = lab.condense([asked(QUESTIONS[0], TRACE, 3, "averaged")])
    assert done.usage == Usage(len(prompt.ids), 0, 3, 3)


def test_a_trace_that_leaves_no_positions_is_a_failed_call(outputs: Path) -> None:
    lab = lab_of(outputs / "text")
    long, short = lab.condense([asked(QUESTIONS[0], "1 + 1 = 2\n" * 20), asked(QUESTIONS[0], TRACE)])
    assert (long.error or "").endswith("and the model room for 128")
    assert short.error is None


def test_controls_hold_zeros_and_anothers_vectors(outputs: Path) -> None:
    lab = lab_of(outputs / "text")
    named = [asked(QUESTIONS[0], TRACE, is_zeroed=True).memory, asked(QUESTIONS[0], TRACE, whose=QUESTIONS[1]).memory]
    edit = lab.recollection.edit(named)
    assert edit is not None
    own = torch.full((2, 32), 7.0)
    others = lab.recollection.recalled([TraceMemory(QUESTIONS[1], TRACE, SLOTS, "condensed")])
    for slot in range(SLOTS):
        given = edit(slot, own, torch.ones(2, dtype=torch.bool))
        assert torch.equal(given[0], torch.zeros(32))
        assert torch.equal(given[1], next(iter(others.values()))[slot])
    assert torch.equal(edit(SLOTS, own, torch.ones(2, dtype=torch.bool)), own)


METHODS = ["condensed", "condensed_zeroed", "condensed_another", "averaged", "averaged_another"]
SMALL = ("task=summarize", "task.iterations=2", "task.chains=2", "task.samples=2", "task.problems=4")
THREE = (*SMALL, f"task.methods=[{','.join(METHODS)}]", "task.thoughts=3")


def thought(run: Path, folder: Path, *overrides: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of samples and calls, without what is then made of them."""
    config: EvalConfig = job("eval", [f"run={run}", "device=cpu", *overrides]).config
    task: Any = config.task
    return deliberated(*prepared(task, config), folder, config)


def test_only_the_vectors_of_a_trace_are_handed_on_and_they_count_as_tokens(outputs: Path, tmp_path: Path) -> None:
    samples, calls = thought(outputs / "text", tmp_path, *THREE)
    split = list(trained_config(outputs / "text").dataset.load("test"))
    lends = {one.id: another for one, another in zip(split, [*split[1:], split[0]], strict=True)}
    firsts = {(row["sample_id"], row["chain"]): row["text"] for row in calls if row["method"] == "samples"}
    for method in METHODS:
        mine = [row for row in samples if row["method"] == method]
        assert len(mine) == 4 * 2 * 3
        for first, second, third in zip(mine[::3], mine[1::3], mine[2::3], strict=True):
            assert [row["summary_tokens"] for row in (first, second, third)] == [3, 3, None]
            assert [row["prompt_tokens"] - first["prompt_tokens"] for row in (first, second, third)] == [0, 3, 3]
            written = [row["reasoning_tokens"] for row in (first, second, third)]
            assert third["cum_tokens"] == sum(written) + 6
            own = [row["reasoning"].partition("###")[0] for row in (first, second)]
            if method.endswith("_another"):
                own = [firsts[lends[first["id"]].id, first["chain"]].partition("###")[0]] * 2
            assert [first["summary"], second["summary"]] == own
    handed = [row for row in calls if "memory" in row]
    assert {row["memory"]["is_zeroed"] for row in handed if row["method"] == "condensed_zeroed"} == {True}
    made = [row for row in handed if row["role"] == "condense"]
    assert {(row["tokens"]["completion"], row["text"]) for row in made} == {(3, "")}
    # The last problem chosen borrows from one that is not: its first attempts alone are asked for besides.
    assert {row["sample_id"] for row in calls} == {each.id for each in split[:5]}
    assert {row["role"] for row in calls if row["sample_id"] == split[4].id} == {"reason"}


def test_killed_and_in_other_batches_it_ends_with_the_same_rows(outputs: Path, tmp_path: Path) -> None:
    whole, calls = thought(outputs / "latent", tmp_path / "whole", *THREE)
    words = [f"run={outputs / 'latent'}", "device=cpu", *THREE, "batch_size=5", f"out={tmp_path / 'killed'}"]
    process = subprocess.Popen([sys.executable, "-m", "latent_lab.eval", *words], env=environment(), stderr=subprocess.DEVNULL)
    ledger = tmp_path / "killed" / "calls.jsonl"
    while process.poll() is None and (not ledger.exists() or ledger.read_bytes().count(b"\n") < len(calls) // 2):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = ledger.read_bytes()
    assert len(calls) // 2 <= kept.count(b"\n") < len(calls)
    again, rest = thought(outputs / "latent", tmp_path / "killed", *THREE, "batch_size=5")
    assert again == whole
    assert ledger.read_bytes().startswith(kept[: kept.rfind(b"\n") + 1])
    assert sorted(row["key_sha256"] for row in rest) == sorted(row["key_sha256"] for row in calls)


def test_they_stand_among_the_other_ways_and_go_on_in_another_folder(outputs: Path, tmp_path: Path) -> None:
    few = (*SMALL, "task.methods=[first_k,condensed]", "task.chains=1", "task.samples=2")
    found = evaluate(outputs / "text", *few, f"out={tmp_path / 'whole'}")
    assert [name for name in found["curves"] if "of first" not in name] == ["first_k", "condensed"]
    assert found["about"]["condensed"].startswith("a run thinks over its trace")
    whole = rows(tmp_path / "whole" / "samples.jsonl")
    assert {row["summary_tokens"] for row in whole if row["method"] == "condensed"} == {4, None}  # where none is thought anew
    rest, _ = thought(outputs / "text", tmp_path / "rest", *few, f"task.replay={tmp_path / 'whole'}", "task.from_iteration=1")
    assert [row | {"is_replayed": False} for row in rest] == whole


def test_a_chain_ends_where_its_tokens_or_its_news_do(outputs: Path, tmp_path: Path) -> None:
    one = (*SMALL, "task.problems=1", "task.chains=1", "task.samples=1", "backend=run", "backend.temperature=0")

    def stops(name: str, *overrides: str) -> dict[str, str]:
        samples, _ = thought(outputs / "text", tmp_path / name, *one, *overrides)
        return {row["method"]: row["stop_reason"] for row in samples if row["stop_reason"] and not row["is_carried"]}

    both = "task.methods=[condensed,condensed_zeroed]"
    # Greedily, equal vectors of equal texts: it ends once two traces are equal; a control says nothing by being the same.
    ended = stops("same", both, "task.stop=no_change", "task.iterations=9")
    assert ended == {"condensed": "no_change", "condensed_zeroed": "fixed", "samples": "fixed"}
    first = rows(tmp_path / "same" / "calls.jsonl")[0]["tokens"]["completion"]
    for most, why in ((first + 3, "budget"), (first + 4 + 1000, "fixed")):
        assert stops(str(most), "task.methods=[condensed]", f"task.chain_tokens={most}")["condensed"] == why
        made = [row for row in rows(tmp_path / str(most) / "calls.jsonl") if row["role"] == "condense"]
        assert len(made) == (0 if why == "budget" else 2)


@pytest.mark.parametrize(
    ("run", "overrides", "message"),
    [
        (
            "pause",
            [],
            r"^task\.methods: given condensed; the backend cannot think over what is written; allowed: run=RUN of a ru",
        ),
        (
            None,
            [],
            r"^task\.methods: given condensed; the backend cannot think over what is written; allowed: run=RUN of a run th",
        ),
        (
            "text",
            ["dataset=arithmetic", "dataset.size=1", "task.methods=[averaged_another]"],
            r"^task\.methods: given averaged_another; the split has one problem.* a split of two, or averaged_zeroed$",
        ),
    ],
)
def test_who_cannot_hand_on_vectors_is_refused(
    outputs: Path, tmp_path: Path, run: str | None, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        think_again(outputs / run if run else None, tmp_path, "task.methods=[condensed]", *overrides)
