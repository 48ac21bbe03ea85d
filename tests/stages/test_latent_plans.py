"""Steps that are thoughts, each after its planning tokens: layouts token by token, and replies that are thought through."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from latent_lab.backbone import ModelError
from latent_lab.batching import collate
from latent_lab.config import ConfigError, EvalConfig
from latent_lab.deliberation.lab import load
from latent_lab.grading import session
from latent_lab.grading.calculator import Vocabulary
from latent_lab.grading.evaluate import Solver
from latent_lab.grading.interleaved import in_place, thinking_next
from latent_lab.grading.session import trained_config
from latent_lab.grading.task import Answers
from latent_lab.job import job
from latent_lab.plans.arithmetic import Arithmetic
from latent_lab.plans.base import PlanError
from latent_lab.plans.forcing import GoldPlan
from latent_lab.plans.measures import told
from latent_lab.problems import Problem
from latent_lab.problems.arithmetic import Arithmetic as Sums
from latent_lab.problems.arithmetic import addition
from latent_lab.reasoner import LatentReasoner
from latent_lab.report.play import PlayError
from latent_lab.report.thoughts_reading import Unreadable
from latent_lab.run import accelerator
from latent_lab.schedule import Phase
from latent_lab.sequences import IGNORE, Encoded
from latent_lab.stages.planning import Planning
from tests.stages.test_planning import SUM, prepared
from tests.tiny import evaluate, result, rows, train

LAYOUTS = {
    (1, 1): "<prefix_0><+_0><*_0><|latent|>\n<prefix_0><assignment_0><<7=7>>\n<prefix_0><answer_0>### 7",
    (2, 1): "<prefix_0><+_0><*_0><|latent|>\n<prefix_0><assignment_0><|latent|>\n<prefix_0><answer_0>### 7",
    (5, 1): "<prefix_0><+_0><*_0><|latent|>\n<prefix_0><assignment_0><|latent|>\n<prefix_0><answer_0>### 7",
    (1, 2): "<prefix_0><+_0><*_0><|latent|><|latent|>\n<prefix_0><assignment_0><<7=7>>\n<prefix_0><answer_0>### 7",
    (0, 2): "<prefix_0><+_0><*_0><<1+2*3=7>>\n<prefix_0><assignment_0><<7=7>>\n<prefix_0><answer_0>### 7",
}


@pytest.mark.parametrize(("stage", "slots"), LAYOUTS)
def test_a_thought_stands_where_its_step_stood(stage: int, slots: int) -> None:
    layout, backbone = prepared(Arithmetic(), stages=[0, 5], latents_per_step=slots)
    (encoded,) = layout.encode([SUM], backbone.tokenizer)
    laid = layout.sequence(encoded, backbone.tokens, stage)
    asked, latent = len(encoded.question), backbone.tokens.latent
    assert backbone.tokenizer.decode(laid.ids[asked:]) == LAYOUTS[stage, slots] + "<|endoftext|>"
    # All is to be predicted but the question and a step's further slots: by the first one the model says that it thinks.
    further = [place for place, i in enumerate(laid.ids) if i == latent and laid.ids[place - 1] == latent]
    assert [place for place, label in enumerate(laid.labels) if label == IGNORE] == [*range(asked), *further]
    assert laid.step_of_slot == tuple(step for step in range(min(stage, 2)) for _ in range(slots))
    first = laid.ids.index(latent) if laid.num_slots else asked
    assert layout.shape(encoded, stage) == (laid.num_slots, first, len(laid.ids) - laid.num_slots - first)
    assert layout.prompt(encoded, backbone.tokens, stage).ids == laid.ids[:asked]


def test_roles_token_by_token() -> None:
    layout, backbone = prepared(Arithmetic(), stages=[1], latents_per_step=2)
    (encoded,) = layout.encode([replace(SUM, steps=("<<1+2=3>>",))], backbone.tokenizer)
    laid = layout.sequence(encoded, backbone.tokens, 1)
    asked = len(encoded.question)
    said = [(role.name, backbone.tokenizer.decode([i])) for role, i in zip(laid.roles, laid.ids, strict=True)][asked:]
    answer = [("ANSWER", backbone.tokenizer.decode([i])) for i in encoded.answer]
    assert said == [
        ("PLAN", "<prefix_0>"),
        ("PLAN", "<+_0>"),
        ("LATENT", "<|latent|>"),
        ("LATENT", "<|latent|>"),
        ("STEP", "\n"),
        ("PLAN", "<prefix_0>"),
        ("PLAN", "<answer_0>"),
        *answer,
    ]


def test_the_text_of_a_step_is_wanted_of_the_last_of_its_thoughts() -> None:
    layout, backbone = prepared(Arithmetic(), stages=[2], latents_per_step=2, supervision=1.0)
    (encoded,) = layout.encode([SUM], backbone.tokenizer)
    texts = layout.sequence(encoded, backbone.tokens, 2).slot_texts
    assert texts == ((), encoded.steps[0], (), encoded.steps[1])
    assert layout.step_supervision() == (1.0, "linear")


def test_a_thought_after_two_planning_tokens_is_as_long_as_three_in_its_place() -> None:
    def length(**settings: Any) -> int:
        layout, backbone = prepared(Arithmetic(several="first"), **settings)
        (encoded,) = layout.encode([SUM], backbone.tokenizer)
        answer = len(layout.blocks.last()) + bool(settings.get("place")) if layout.blocks else 0
        return len(layout.sequence(encoded, backbone.tokens, layout.stages[-1]).ids) - answer

    assert length(stages=[2]) == length(place="plan_only", num_prefix=2)


def test_stages_are_trained_one_after_another() -> None:
    made = job("train", ["stage=planning", "plan=arithmetic", "stage.stages=[0,1,2]", "stage.epochs=[2,1]"]).config.stage
    assert made.phases() == [Phase(0, 2.0), Phase(1, 1.0), Phase(2, 1.0)]
    assert (made.has_slots, made.num_slots(2), made.slots_when_said(2), made.slots_when_said(0)) == (True, 2, 1, 0)
    assert Planning().has_slots is False


# Cached as at once


def continued(reasoner: LatentReasoner, ids: list[int], count: int) -> list[int]:
    """What greedy decoding adds to ids, the whole sequence run anew for every token: no cache is kept."""
    new: list[int] = []
    for _ in range(count):
        row = torch.tensor([[*ids, *new, 0]])
        labels = torch.full_like(row, IGNORE)
        labels[0, -1] = 0
        new.append(int(reasoner(row, labels=labels).logits[0].argmax()))
    return new


@pytest.mark.parametrize("sees", ["all", "segment", "question"])
@pytest.mark.parametrize("slots", [1, 2])
def test_generation_goes_on_between_thoughts_as_if_all_were_run_anew(slots: int, sees: str) -> None:
    layout, backbone = prepared(Arithmetic(), stages=[2], latents_per_step=slots, text_sees=sees)
    problems = [SUM, replace(SUM, question="How many are there?", steps=("<<4-1=3>>",))]
    encoded = layout.encode(problems, backbone.tokenizer)
    reasoner = LatentReasoner(backbone.model.eval(), backbone.tokens, layout.loop())
    prompts = []
    for p in encoded:
        laid = layout.sequence(p, backbone.tokens, 2)
        last = max(place for place, i in enumerate(laid.ids) if i == backbone.tokens.latent)
        prompts.append(replace(laid, ids=laid.ids[: last + 1], labels=laid.labels[: last + 1], roles=laid.roles[: last + 1]))
    batch = collate(prompts, backbone.pad)
    new = reasoner.generate(batch.input_ids, batch.attention_mask, max_new_tokens=6).tolist()
    with torch.no_grad():
        assert new == [continued(reasoner, list(prompt.ids), 6) for prompt in prompts]


# The real thing

LATENT = ("stage=planning", "plan=arithmetic", "stage.num_prefix=1", "stage.num_special=1")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learned when to think, and nothing else."""
    made = tmp_path_factory.mktemp("outputs")
    learned = ("stage.stages=[2]", "stage.epochs=[30]", "stage.supervision=1", "optim.lr=1e-2", "name=thinks")
    train(made, *LATENT, *learned)
    return made


def solver_of(run: Path) -> tuple[Solver, Any]:
    trained = trained_config(run)
    with accelerator("cpu", "fp32") as at:
        return session.solver_of(run, trained, at, 4, Answers())[0], trained.stage


def encoded(solver: Solver, stage: Any, problems: list[Problem]) -> list[Encoded]:
    made: list[Encoded] = stage.encode(problems, solver.backbone.tokenizer)
    return made


def thought_anew(solver: Solver, problem: Encoded) -> tuple[list[int], int]:
    """A reply token by token, the whole sequence run anew for each; and how many thoughts stand in it."""
    tokens, ids, thoughts = solver.backbone.tokens, list(problem.question), 0
    while len(ids) < len(problem.question) + 40:
        (new,) = continued(solver.reasoner, ids, 1)
        if new == solver.backbone.tokenizer.eos_token_id:
            break
        ids.append(new)
        thoughts += new == tokens.latent
    return ids[len(problem.question) :], thoughts


def test_a_reply_is_what_it_would_be_without_any_cache(outputs: Path) -> None:
    solver, stage = solver_of(outputs / "thinks")
    problems = Sums(digits=[2], probabilities=[1.0], size=5).load("valid")
    asked = encoded(solver, stage, problems)
    replies = solver.replies(asked)
    with torch.no_grad():
        anew = [thought_anew(solver, p) for p in asked]
    assert [reply.num_thoughts for reply in replies] == [thoughts for _, thoughts in anew]
    assert {reply.num_thoughts for reply in replies} == {2}
    for reply, (ids, _) in zip(replies, anew, strict=True):
        assert reply.text == solver.backbone.tokenizer.decode([i for i in stage.plain(ids) if i != solver.backbone.tokens.latent])
    assert solver.thoughts(asked).shape == (5, 2, 32)


def test_thoughts_are_replaced_while_the_plan_is_written(outputs: Path) -> None:
    assert set(result(outputs / "thinks")["floors"]) == {"majority", "thoughts_zeroed", "thoughts_another_problem"}
    solver, stage = solver_of(outputs / "thinks")
    asked = encoded(solver, stage, Sums(digits=[2], probabilities=[1.0], size=3).load("valid"))
    loud = 30 * torch.randn(3, 1, 32, generator=torch.Generator().manual_seed(0))
    assert [prompt.ids for prompt in solver.prompts(asked, None, loud)] != [prompt.ids for prompt in solver.prompts(asked)]
    given = torch.arange(6.0).view(3, 2, 1)
    edit = in_place(given, [2, 0])
    assert edit is not None
    assert [edit(slot, torch.zeros(2, 1), None).flatten().tolist() for slot in range(3)] == [[4, 0], [5, 1], [5, 1]]  # type: ignore
    assert in_place(None) is None


def test_the_gold_plan_is_given_before_every_thought(outputs: Path) -> None:
    solver, stage = solver_of(outputs / "thinks")
    problems = [addition(str(i), a, b) for i, (a, b) in enumerate([(11, 22), (37, 98), (45, 31)])]
    asked = encoded(solver, stage, problems)
    first, carries, last = told(solver, problems, asked, stage.reading)
    for row in (first, last):
        assert (row["plan"], row["thoughts"]) == (["+", "+"], 2)
    # A prompt that ends in a thought holds its line's block already: what is given next is the block of the line after it.
    blocks = [solver.backbone.tokenizer.decode(block) for block in asked[1].plans]
    assert blocks[:2] == ["<prefix_0><+_0>", "<prefix_0><+_0><+_0>"]
    thought = thinking_next(
        stage.prompt(asked[1], solver.backbone.tokens, 2), asked[1].plans[0], (solver.backbone.tokens.latent,)
    )
    gold = GoldPlan(["1"], {"1": asked[1]}, stage.reading.ids, Vocabulary(solver.backbone.tokenizer))
    batch = collate([thought], solver.backbone.pad)
    new = replace(solver, processor=lambda _: gold).generate(batch, [solver.backbone.tokenizer.eos_token_id], None)[0].tolist()
    assert solver.backbone.tokenizer.decode(new).startswith(f"\n{blocks[1]}")
    assert carries["plan_tokens"] > 0


def test_what_is_measured_of_plans_before_thoughts(outputs: Path) -> None:
    plans = result(outputs / "thinks")["plans"]
    assert plans["writes_any"]["value"] == 1.0
    assert set(plans["loss"]) == {"plan", "step", "answer"}
    noted = rows(outputs / "thinks" / "samples.jsonl")
    assert {row["thoughts"] for row in noted} == {2}
    assert all(len(row["plan"]) >= 2 and "latent" not in row["output"] for row in noted)
    graded = evaluate(outputs / "thinks", "split=test", "limit=4")
    assert graded["slots"] == "model"


def test_what_takes_all_thoughts_from_the_prompt_refuses_a_run_that_writes_between_them(outputs: Path) -> None:
    with pytest.raises(PlanError, match=r"^run: .* thinks, and its thoughts are no tokens; allowed: runs that write all steps$"):
        evaluate(outputs / "thinks", "task=attention", "limit=4")
    with pytest.raises(ModelError, match="writes steps before it thinks"):
        load(EvalConfig(run=str(outputs / "thinks"), device="cpu", precision="fp32"), 0.0, 0, 8)
    with pytest.raises(Unreadable, match=r"writes between its thoughts; allowed: runs whose thoughts stand in their prompts$"):
        evaluate(outputs / "thinks", "task=thoughts", "limit=4")
    with pytest.raises(PlayError, match="writes between its thoughts; allowed: runs whose thoughts"):
        evaluate(outputs / "thinks", "task=play")
    oracle = job("train", ["stage=oracle", "oracle=self", f"stage.run={outputs / 'thinks'}"])
    with pytest.raises(ConfigError, match="that run writes between its thoughts; allowed: one whose prompts hold them"):
        oracle.config.stage.train(oracle)


# Settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": []}, "stages=[]: give one or more stages, 0 and up, in rising order"),
        ({"stages": [2, 1]}, "stages=[2, 1]: give one or more stages, 0 and up, in rising order"),
        (
            {"stages": [1], "place": "plan_only"},
            "place=plan_only: a thought stands after its own block; allowed with stages=[1]: steps",
        ),
        ({"supervision": 1.0}, "supervision=1.0: stages=[0] has no thoughts; allowed: leave it out, or more stages"),
        ({"stages": [1], "latents_per_step": 0}, "latents_per_step=0: allowed are 1 and more"),
        ({"stages": [1], "supervision": -1.0}, "supervision=-1.0: allowed are weights of 0 and more"),
        (
            {"stages": [1], "words": True},
            "words=true: a step is thought after its planning tokens; allowed with stages=[1]: false",
        ),
        ({"stages": [1], "decoder": "x"}, "decoder=x: allowed are autoregressive, linear"),
    ],
)
def test_an_impossible_setting_says_what_is_allowed(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Planning(**options)


def test_without_planning_tokens_no_step_is_a_thought() -> None:
    with pytest.raises(ConfigError) as error:
        job("train", ["stage=planning", "plan=none", "stage.stages=[1]"])
    assert str(error.value) == (
        "stage.stages: given [1]; a step is thought after its planning tokens; allowed: [0], a plan= that has some, or "
        "stage=coconut"
    )


@pytest.mark.parametrize("settings", ["stage.stages=[1]", "stage.text_sees=segment"])
def test_a_clustering_plan_names_its_model_where_the_run_without_tokens_could_not_be(settings: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^plan\.model: given nothing; the run with plan=none that would embed the steps can have"
    ):
        job("train", ["stage=planning", "plan=kmeans", settings])
    assert job("train", ["stage=planning", "plan=kmeans", "plan.model=other", settings]).config.plan.model == "other"
