"""What a result says of plans, held against counts by hand; the gold plan is given, and nothing besides."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from latent_lab.backbone import Scratch
from latent_lab.grading.calculator import Calculator, Vocabulary
from latent_lab.grading.evaluate import Solver
from latent_lab.plans.arithmetic import Arithmetic
from latent_lab.plans.base import Plan, PlanError
from latent_lab.plans.effects import changed, effects, in_a_line, line_of
from latent_lab.plans.forcing import GoldPlan
from latent_lab.plans.information import by_chance, entropy, frequent, most_frequent, mutual_information, normalised
from latent_lab.plans.losses import losses, losses_by_kind
from latent_lab.plans.measures import alarm, information, steps_as_gold, told
from latent_lab.plans.words import MemoryReason
from latent_lab.problems import Problem
from latent_lab.reasoner import LatentReasoner
from latent_lab.sequences import IGNORE
from latent_lab.stages.planning import Planning

PROBLEMS = [Problem("p", "How many?", ("<<1+2=3>>", "<<3*2=6>>"), "6"), Problem("q", "Who?", ("<<9-2=7>>",), "7")]


def setting(plan: Plan | None = None, problems: Sequence[Problem] = PROBLEMS, **settings: Any) -> tuple[Planning, Solver, Any]:
    torch.manual_seed(0)
    backbone = Scratch(layers=1, width=32, heads=2, positions=128).load(problems)
    stage = Planning(num_prefix=1, num_special=1, **settings)
    stage.plan = plan or Arithmetic()  # type: ignore[misc]
    stage.prepare(backbone, problems, None)  # type: ignore[arg-type]
    encoded = stage.encode(problems, backbone.tokenizer)
    reasoner = LatentReasoner(backbone.model, backbone.tokens).eval()
    return stage, Solver(reasoner, backbone, stage, 0, 0, max_new_tokens=40), encoded


def test_steps_are_compared_in_place() -> None:
    rows = [
        {"id": "a", "plan": ["+", "-"], "plan_gold": ["+", "*", "/"]},  # 1 of 3
        {"id": "b", "plan": ["+", "+", "+"], "plan_gold": ["+"]},  # 1 of 1
        {"id": "c", "plan": [], "plan_gold": ["*"]},  # 0 of 1
    ]
    found = steps_as_gold(rows)
    assert found is not None
    assert (found["value"], found["n"]) == (pytest.approx(2 / 5), 3)
    assert steps_as_gold([{"id": "a", "plan": [], "plan_gold": []}]) is None


def test_bits_of_kinds_and_of_what_they_tell_of_operators() -> None:
    rows = [
        {
            "plan": ["a", "b"],
            "plan_gold": ["a", "b", "c", "d"],
            "plan_operators": ["+", "-"],
            "plan_gold_operators": ["+", "+", "-", "-"],
        },
        {"plan": ["a", "b"], "plan_gold": [], "plan_operators": ["+", "-"], "plan_gold_operators": []},
    ]
    found = information(rows)
    assert found["kinds"] == {"written": 4, "bits": 1.0, "bits_of_gold": 2.0, "most_frequent": 0.5}
    assert (found["operators"]["bits"], found["operators"]["n"]) == (1.0, 4)
    assert 0 < found["operators"]["by_chance"] < 1
    assert (found["operators_of_gold"]["bits"], found["operators_of_gold"]["n"]) == (1.0, 4)  # c or d: nothing more
    assert (found["operators"]["nmi"], found["operators_of_gold"]["nmi"]) == (1.0, pytest.approx(2 / 3))
    assert found["frequent"] == frequent(rows)
    nothing: dict[str, Any] = {"plan": [], "plan_gold": [], "plan_operators": [], "plan_gold_operators": []}
    assert information([nothing]) == {}
    assert information([{**nothing, "plan_gold": ["a"], "plan_gold_operators": ["+"]}])["operators"] is None


def test_information_is_that_of_the_textbook() -> None:
    assert entropy(["a", "a", "b", "c"]) == 1.5
    assert entropy(["a"]) == 0.0
    independent = [(a, b) for a in "xy" for b in "+-"]
    assert mutual_information(independent) == 0.0
    many = [(a, b) for a in "xy" for b in "+-" for _ in range(100)]
    assert by_chance(many) < 0.02
    assert mutual_information([("x", "+"), ("x", "+"), ("y", "-"), ("y", "+")]) == pytest.approx(0.3112781)  # by hand
    assert normalised([("x", "+"), ("x", "+"), ("y", "-"), ("y", "+")]) == pytest.approx(2 * 0.3112781 / (1 + 0.8112781))
    assert normalised(independent) == 0.0
    assert normalised([("x", "+"), ("x", "+")]) is None


def test_the_most_frequent_plans_and_pairs_are_counted_in_chains_and_in_replies() -> None:
    rows = [
        {"plan": ["+ *", "-"], "plan_gold": ["+ *", "-"]},
        {"plan": ["-"], "plan_gold": ["+ *", "-", "-"]},
        {"plan": [], "plan_gold": ["-"]},
    ]
    assert frequent(rows) == {
        "plans": [
            {"kinds": ["+ *", "-"], "gold": 1, "written": 1},
            {"kinds": ["-"], "gold": 1, "written": 1},
            {"kinds": ["+ *", "-", "-"], "gold": 1, "written": 0},
        ],
        "pairs": [{"kinds": ["+ *", "-"], "gold": 2, "written": 1}, {"kinds": ["-", "-"], "gold": 1, "written": 0}],
    }
    many = most_frequent([(str(i),) for i in range(99)], [("50",)])
    assert (len(many), many[0]) == (10, {"kinds": ["50"], "gold": 1, "written": 1})


def test_losses_are_means_over_the_tokens_of_a_role() -> None:
    stage, solver, encoded = setting()
    sums: dict[str, list[float]] = {"plan": [], "step": [], "answer": []}
    for problem in encoded:
        sequence = stage.sequence(problem, solver.backbone.tokens, 0)
        with torch.no_grad():
            logits = solver.backbone.model(torch.tensor([sequence.ids])).logits[0].log_softmax(-1)
        for at in range(len(problem.question), len(sequence.ids)):
            sums[sequence.roles[at].name.lower()].append(-float(logits[at - 1, sequence.ids[at]]))
    assert losses(solver, encoded) == {name: pytest.approx(sum(each) / len(each), rel=1e-4) for name, each in sums.items()}


@pytest.mark.parametrize("settings", [{}, {"place": "plan_first"}, {"stages": [0, 1]}])
def test_losses_by_kind_are_means_over_the_blocks_and_the_steps_of_a_kind(settings: dict[str, Any]) -> None:
    stage, solver, encoded = setting(**settings)
    solver.stage = stage.stages[-1]
    plan = stage.plan
    assert plan is not None
    found = losses_by_kind(solver, encoded, plan.labels(PROBLEMS))
    assert {kind: each["steps"] for kind, each in found.items()} == {"*": 1, "+": 1, "-": 1}
    tokenizer, places = solver.backbone.tokenizer, {"+": (0, 0), "*": (0, 1), "-": (1, 0)}
    for kind, (number, step) in places.items():
        sequence = stage.sequence(encoded[number], solver.backbone.tokens, solver.stage)
        labels = torch.tensor([sequence.labels])
        with torch.no_grad():
            out = solver.reasoner(torch.tensor([sequence.ids]), labels=labels)
        costs = torch.nn.functional.cross_entropy(out.logits, out.targets, reduction="none").tolist()
        at = len(encoded[number].question) + len(encoded[number].overview)
        is_thought = step < solver.stage
        blocks, texts = encoded[number].plans, [("\n" if is_thought else p + "\n") for p in PROBLEMS[number].steps]
        if step:  # the first step of this problem stands before it
            at += len(blocks[0]) + (2 if solver.stage else len(encoded[number].steps[0]))
        skipped = sum(label == IGNORE for label in sequence.labels[:at])
        first, size = at - skipped, len(blocks[step])
        assert found[kind]["plan"] == pytest.approx(sum(costs[first : first + size]) / size, rel=1e-4)
        first += size + is_thought  # what says that it thinks is no text
        size = len(tokenizer(texts[step])["input_ids"])
        assert found[kind]["step"] == pytest.approx(sum(costs[first : first + size]) / size, rel=1e-4)


def test_an_alarm_says_that_nothing_is_written_or_that_all_is_alike() -> None:
    def row(plan: list[str], gold: list[str]) -> dict[str, Any]:
        return {"plan": plan, "plan_gold": gold, "plan_tokens": 2 * len(plan)}

    assert alarm([row(["+", "-"], ["+", "-"]), row(["+", "+"], ["-", "*"])]) is None
    assert alarm([row([], ["+", "-"])]) == "no planning token was written"
    alike = [row(["+", "+"], ["+", "-"]), row(["+"], ["-"])]
    assert alarm(alike) == "plans have collapsed: 0.00 bits where the gold chain has 0.92"
    assert alarm([row(["+"], ["+"])]) is None  # the gold plan is all alike, too
    assert alarm([{"plan": [], "plan_gold": [], "plan_tokens": 3}]) is None  # plans without kinds
    stray = {"plan": [], "plan_gold": ["+", "-"], "plan_tokens": 3}
    assert alarm([stray]) == "no whole block was written before a step"
    assert alarm([stray, row(["+", "-"], ["+"])]) is None


@pytest.mark.parametrize(
    ("text", "due"), [("<prefix_0></_0><<8/2=", "4"), ("<prefix_0></_0><<8/2=4", ">"), ("<prefix_0></_0>", None)]
)
def test_the_calculator_writes_results_after_planning_tokens(text: str, due: str | None) -> None:
    _, solver, encoded = setting()
    tokenizer, asked = solver.backbone.tokenizer, list(encoded[0].question)
    tool, new = Calculator(Vocabulary(tokenizer)), tokenizer(text, add_special_tokens=False)["input_ids"]
    tool(torch.tensor([asked]), torch.zeros(1, len(tokenizer)))  # where the prompt ends
    scores = tool(torch.tensor([[*asked, *new]]), torch.zeros(1, len(tokenizer)))
    allowed = scores[0].isfinite().nonzero()[:, 0].tolist()
    assert len(allowed) == (1 if due else len(tokenizer))
    assert due is None or tokenizer.decode(allowed).startswith(due)


def test_the_gold_plan_is_written_at_the_beginning_of_lines_and_nowhere_else() -> None:
    stage, solver, encoded = setting()
    assert stage.reading is not None
    tokenizer, size = solver.backbone.tokenizer, len(solver.backbone.tokenizer)
    force = GoldPlan(["q", "p"], {p.id: p for p in encoded}, stage.reading.ids, Vocabulary(tokenizer))
    written: list[list[int]] = [[], []]
    width = max(len(p.question) for p in encoded)
    asked = [[tokenizer.eos_token_id] * (width - len(p.question)) + list(p.question) for p in reversed(encoded)]
    lines = [iter(tokenizer(text)["input_ids"]) for text in ("9\n### 7\n### 7\n", "1\n2\n### 7 8")]
    for _ in range(14):
        scores = force(torch.tensor([[*q, *row] for q, row in zip(asked, written, strict=True)]), torch.zeros(2, size))
        for row, (kept, own) in enumerate(zip(written, lines, strict=True)):
            (allowed,) = [set(scores[row].isfinite().nonzero()[:, 0].tolist())]
            if len(allowed) == 1:
                kept.append(allowed.pop())
            else:
                assert allowed == set(range(size)) - set(stage.reading.ids)
                kept.append(next(own, tokenizer.eos_token_id))
    texts = [tokenizer.decode(row).split("<|endoftext|>")[0] for row in written]
    assert texts[0].startswith("<prefix_0><-_0>9\n<prefix_0><answer_0>### 7\n###")
    assert texts[1].startswith("<prefix_0><+_0>1\n<prefix_0><*_0>2\n<prefix_0><answer_0>###")


@pytest.mark.parametrize("place", ["steps", "plan_first", "plan_only"])
def test_with_the_gold_plan_every_model_writes_it(place: str) -> None:
    stage, solver, encoded = setting(place=place)
    assert stage.reading is not None
    given = told(solver, PROBLEMS, encoded, stage.reading)
    alone = solver.graded(PROBLEMS, encoded)
    assert [row["id"] for row in given] == ["p", "q"]
    for row in given:
        first = 2 if place != "plan_only" else 0  # an untrained model writes no line's end: the first block is there at least
        assert row["plan_tokens"] >= first
        assert "_" not in row["output"]
    assert solver.processor is None
    assert [row["plan_gold"] for row in alone] == [["+", "*"], ["-"]]
    assert replace(encoded[0], plans=()) != encoded[0]


def test_a_block_is_exchanged_or_left_out_before_one_step_alone() -> None:
    _, _, encoded = setting()
    (first, second, last), other = encoded[0].plans, (1, 2)
    assert changed(encoded[0], 1, other).plans == (first, other, last)
    assert changed(encoded[0], 0, ()).plans == ((), second, last)
    assert [line_of("a\nb", step) for step in (0, 1, 2)] == ["a", "b", ""]


def test_where_kinds_are_no_operators_nothing_is_said_of_doing_as_announced() -> None:
    tagged = [Problem("m", "Is it?", ("[rag]: 1+2", "[reason]: 3*2"), "6"), Problem("r", "Who?", ("[reason]: 9-2",), "7")]
    for plan, problems, said in ((Arithmetic(), PROBLEMS, "do that instead"), (MemoryReason(), tagged, "do otherwise")):
        stage, solver, encoded = setting(plan, problems)
        assert stage.reading is not None
        found = effects(solver, problems, encoded, stage.reading, 0, 0)
        is_there = {"as_announced" in each for each in (found["exchanged"], found["gold"], *found["forced"].values())}
        assert is_there == {said == "do that instead"}
        line = rf"step 0 announced as another kind: [\d.]+% of 2 {said}; left out: [\d.]+% do as the gold chain"
        assert re.fullmatch(line, in_a_line(found))


def test_an_exchange_is_held_against_the_gold_plan_on_the_same_problems() -> None:
    stage, solver, encoded = setting()
    assert stage.reading is not None
    found = effects(solver, PROBLEMS, encoded, stage.reading, 0, 0)
    assert (found["n"], found["kinds"]) == (2, ["+", "-"])
    assert found["gold"]["changed"]["value"] == 0.0
    assert {found[name]["as_announced"]["n"] for name in ("gold", "exchanged", "left_out")} == {2}
    assert set(found["forced"]) == {"+", "-"}
    assert all(sum(each["operators"].values()) == 2 for each in found["forced"].values())
    with pytest.raises(PlanError, match=r"^task\.step=1: an exchange takes two kinds, 1 are announced there; allowed: another"):
        effects(solver, PROBLEMS, encoded, stage.reading, 1, 0)
