"""Thoughts handed on: the same as thinking longer where they are a problem's own, and held against others where they are not."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import evaluate, result, rows, think_again, train

from latent_lab.batching import collate
from latent_lab.calls.client import LatentMemory, Request
from latent_lab.calls.reply import Usage
from latent_lab.config import ConfigError
from latent_lab.deliberation.lab import UNTHOUGHT, Lab, load
from latent_lab.grading.session import trained_config
from latent_lab.job import job

SLOTS = 2
KINDS = {
    "all": (),
    "thoughts": ("stage.answer_sees=thoughts", "stage.max_stage=2"),
    "vectors": ("stage.answer_sees=vectors", "stage.max_stage=2"),
    "before_norm": ("stage.feedback=before_norm", "stage.match_norm=true"),
}
QUESTIONS = ("12 + 34", "7 + 8", "90 + 11")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    for name, overrides in KINDS.items():
        train(
            folder, "stage=coconut", "stage.stages=[2]", "stage.curriculum=false", *overrides, "stage.epochs=[2]", f"name={name}"
        )
    train(folder, "stage=cot", "stage.epochs=[1]", "name=text")
    train(folder, "stage=pause", "stage.stages=[2]", "stage.curriculum=false", "stage.epochs=[1]", "name=pause")
    return folder


def lab_of(run: Path, *, temperature: float = 0.0, num_slots: int = SLOTS) -> Lab:
    lab = load(job("eval", [f"run={run}", "device=cpu"]).config, temperature, 0, 12 + num_slots)
    return replace(lab, solver=replace(lab.solver, num_slots=num_slots))


def asked(question: str, attempts: int = 0, keep: int = SLOTS, **settings: Any) -> Request:
    memory = LatentMemory(settings.pop("whose", question), attempts, keep, settings.pop("is_zeroed", False)) if attempts else None
    return Request(({"role": "user", "content": question},), memory=memory, **settings)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_ones_own_thoughts_handed_on_are_a_longer_rollout(outputs: Path, kind: str, temperature: float) -> None:
    lab = lab_of(outputs / kind, temperature=temperature)
    for attempts in (1, 2):
        kept = attempts * SLOTS
        longer = lab_of(outputs / kind, temperature=temperature, num_slots=kept + SLOTS)
        handed = lab.answer([asked(question, attempts, keep=kept) for question in QUESTIONS])
        plain = longer.answer([asked(question) for question in QUESTIONS])
        assert [done.text for done in handed] == [done.text for done in plain]
        assert any(done.text for done in handed)
        # What was handed on is read, what is thought anew is written.
        read = [done.usage.prompt + kept for done in plain]
        assert [(done.usage.prompt, done.usage.reasoning) for done in handed] == [(prompt, SLOTS) for prompt in read]
        held = lab.recollection.recalled([LatentMemory(question, attempts, kept) for question in QUESTIONS])
        batch = collate(lab.laid(QUESTIONS, [kept] * 3), lab.solver.backbone.pad)
        with torch.no_grad():
            rolled = lab.solver.reasoner(batch.input_ids, batch.attention_mask, is_closed=batch.is_closed).thoughts
        assert torch.equal(torch.stack(list(held.values())), rolled)


def test_no_thoughts_handed_on_are_the_plain_answer(outputs: Path) -> None:
    lab = lab_of(outputs / "all", temperature=1.0)
    plain = lab.answer([asked(question) for question in QUESTIONS])
    for nothing in (LatentMemory(QUESTIONS[0], 0, SLOTS), LatentMemory(QUESTIONS[0], 3, 0)):
        assert lab.recollection.edit([nothing]) is None
        assert lab.answer([replace(asked(question), memory=nothing) for question in QUESTIONS]) == plain


def test_a_window_holds_the_last_thoughts_of_given_and_new_ones(outputs: Path) -> None:
    """One thought of two is kept: the second attempt has slots (t2), a, b and the third (b), c, d. Counted by hand."""
    lab = lab_of(outputs / "all")
    assert [lab.recollection.num_kept(LatentMemory("", n, 1)) for n in range(4)] == [0, 1, 1, 1]
    assert [lab.recollection.num_kept(LatentMemory("", n, 5)) for n in range(4)] == [0, 2, 4, 5]

    def rolled(count: int, first: torch.Tensor | None) -> torch.Tensor:
        batch = collate(lab.laid(QUESTIONS[:1], [count]), lab.solver.backbone.pad)
        given = lambda slot, thoughts, active: first if first is not None and slot == 0 else thoughts  # noqa: E731
        with torch.no_grad():
            return lab.solver.reasoner(batch.input_ids, batch.attention_mask, edit=given).thoughts[0]

    first = rolled(2, None)
    second = rolled(3, first[-1:])
    (held,) = lab.recollection.recalled([LatentMemory(QUESTIONS[0], 2, 1)]).values()
    assert torch.equal(held, second[-1:])
    assert not torch.equal(held, first[-1:])


def test_a_memory_does_not_depend_on_what_stands_beside_it(outputs: Path) -> None:
    lab = lab_of(outputs / "all", temperature=1.0)
    mixed = [
        asked(QUESTIONS[0]),
        asked(QUESTIONS[0], 1),
        asked(QUESTIONS[1], 2, keep=3),
        asked(QUESTIONS[1], 1, whose=QUESTIONS[2]),
        asked(QUESTIONS[2], 1, is_zeroed=True),
        asked(QUESTIONS[2], 1, sample=3),
    ]
    together = lab.answer(mixed)
    fresh = lab_of(outputs / "all", temperature=1.0)
    assert [fresh.answer([each])[0] for each in reversed(mixed)] == list(reversed(together))


def test_a_control_holds_what_it_says(outputs: Path) -> None:
    lab = lab_of(outputs / "all")
    slots = torch.ones(2, dtype=torch.bool)
    memories = [asked(QUESTIONS[0], 1, is_zeroed=True).memory, asked(QUESTIONS[0], 1, whose=QUESTIONS[1]).memory]
    edit = lab.recollection.edit(memories)
    assert edit is not None
    own = torch.full((2, 32), 7.0)
    for slot in range(SLOTS):
        given = edit(slot, own, slots)
        assert torch.equal(given[0], torch.zeros(32))
        others = lab.recollection.recalled([LatentMemory(QUESTIONS[1], 1, SLOTS)])
        assert torch.equal(given[1], next(iter(others.values()))[slot])
    assert torch.equal(edit(SLOTS, own, slots), own)


def test_a_thought_counts_as_a_token(outputs: Path) -> None:
    lab = lab_of(outputs / "all")
    whole, cut, none = lab.answer([asked(QUESTIONS[0], max_tokens=limit) for limit in (None, SLOTS + 1, SLOTS)])
    assert whole.usage.completion == SLOTS + len(lab.solver.backbone.tokenizer(whole.text)["input_ids"]) + (
        whole.finish_reason == "stop"
    )
    assert (cut.usage.completion, cut.usage.reasoning, cut.finish_reason) == (SLOTS + 1, SLOTS, "length")
    assert none == UNTHOUGHT
    assert none.usage == Usage(0, 0, 0, 0)  # no token is left beside the thoughts, so nothing is thought


SMALL = ("task=summarize", "task.iterations=2", "task.chains=2", "task.samples=4", "task.problems=4")


def test_the_default_of_a_run_that_thinks_hands_thoughts_on_beside_its_control(outputs: Path, tmp_path: Path) -> None:
    found = evaluate(outputs / "all", *SMALL, f"out={tmp_path / 'o'}", "batch_size=7")
    recipes = ["first_k", "thoughts", "thoughts_another"]
    assert [name for name in found["curves"] if "vote" not in name and not name.endswith("(knows gold)")] == recipes
    assert [f"{name}, then vote" in found["curves"] for name in recipes] == [True] * 3
    assert set(recipes) < set(found["equal"]["all chains"]["recipes"])
    assert found["num_thoughts"] == SLOTS
    samples = rows(tmp_path / "o" / "samples.jsonl")
    for row in samples:
        if row["method"] == "thoughts" and row["iteration"] == 0:
            again = [s for s in samples if (s["method"], s["id"], s["chain"]) == ("thoughts", row["id"], row["chain"])]
            assert [s["cum_tokens"] for s in again] == [sum(s["reasoning_tokens"] for s in again[: k + 1]) for k in range(3)]
            assert [s["prompt_tokens"] - row["prompt_tokens"] for s in again] == [0, SLOTS, SLOTS]
    handed = [row for row in rows(tmp_path / "o" / "calls.jsonl") if "memory" in row]
    whose = {(row["method"], row["iteration"], row["memory"]["attempts"], row["memory"]["keep"]) for row in handed}
    assert whose == {(name, k, k, SLOTS) for name in recipes[1:] for k in (1, 2)}
    split = [problem.question for problem in trained_config(outputs / "all").dataset.load("test")]
    lender = dict(zip(split, split, strict=True)), dict(zip(split, [*split[1:], split[0]], strict=True))
    own = {row["sample_id"]: row["memory"]["question"] for row in handed if row["method"] == "thoughts"}
    for row in handed:
        assert row["memory"]["question"] == lender[row["method"] == "thoughts_another"][own[row["sample_id"]]]
    # Half its ledger gone, the same command computes the other half.
    whole = (tmp_path / "o" / "calls.jsonl").read_text().splitlines(keepends=True)
    kept, before = (tmp_path / "o" / "samples.jsonl").read_bytes(), result(tmp_path / "o")
    (tmp_path / "o" / "result.json").unlink()
    (tmp_path / "o" / "calls.jsonl").write_text("".join(whole[: len(whole) // 2]))
    evaluate(outputs / "all", *SMALL, f"out={tmp_path / 'o'}", "batch_size=7")
    assert (tmp_path / "o" / "samples.jsonl").read_bytes() == kept
    assert {**result(tmp_path / "o"), "seconds": 0} == {**before, "seconds": 0}
    keys = [json.loads(line)["key_sha256"] for line in (tmp_path / "o" / "calls.jsonl").read_text().splitlines()]
    assert sorted(keys) == sorted(json.loads(line)["key_sha256"] for line in whole)


def test_as_many_thoughts_are_handed_on_as_asked(outputs: Path, tmp_path: Path) -> None:
    few = ("task.methods=[thoughts,thoughts_zeroed]", "task.thoughts=3", "task.problems=1", "task.chains=1", "task.samples=1")
    found = evaluate(outputs / "all", *SMALL, *few, "task.stop=no_change", f"out={tmp_path / 'o'}")
    assert {method: found["stops"][method] for method in ("thoughts", "thoughts_zeroed")} == {
        "thoughts": {"fixed": 1},  # no text is handed on, so none stays the same
        "thoughts_zeroed": {"fixed": 1},
    }
    again = [row for row in rows(tmp_path / "o" / "samples.jsonl") if row["method"] == "thoughts_zeroed"]
    assert [row["prompt_tokens"] - again[0]["prompt_tokens"] for row in again] == [0, 2, 3]
    held = {(row["method"], row["memory"]["is_zeroed"]) for row in rows(tmp_path / "o" / "calls.jsonl") if "memory" in row}
    assert held == {("thoughts", False), ("thoughts_zeroed", True)}


@pytest.mark.parametrize(
    ("run", "overrides", "message"),
    [
        (
            "text",
            ["task.methods=[thoughts]"],
            r"^task\.methods: given thoughts; the backend has no thoughts to hand on; allowed: ",
        ),
        (
            "pause",
            ["task.methods=[thoughts_zeroed]"],
            r"^task\.methods: given thoughts_zeroed; the backend has no thoughts to hand on",
        ),
        (None, ["task.methods=[thoughts]"], r"^task\.methods: given thoughts; the backend has no thoughts to hand on; allowed: "),
        (
            "all",
            ["dataset=arithmetic", "dataset.size=1"],
            r"^task\.methods: given thoughts_another; the split has one problem, so there is no other; allowed: a split of two",
        ),
        ("all", ["task.thoughts=0"], r"^task\.thoughts: given 0; allowed: 1 and more$"),
    ],
)
def test_who_has_no_thoughts_to_hand_on_is_refused(
    outputs: Path, tmp_path: Path, run: str | None, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        think_again(outputs / run if run else None, tmp_path, *overrides)
