"""Planning tokens: every layout as an exact string, what is learned of it, and how replies are read."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from latent_lab.backbone import Backbone, Scratch
from latent_lab.batching import collate
from latent_lab.config import ConfigError
from latent_lab.job import job
from latent_lab.plans.arithmetic import Arithmetic
from latent_lab.plans.base import CONTROLS, General, Plan, PlanError
from latent_lab.plans.clusters import KMeans
from latent_lab.plans.words import MemoryReason
from latent_lab.problems import Problem
from latent_lab.reasoner import LatentReasoner
from latent_lab.run import accelerator
from latent_lab.schedule import Phase
from latent_lab.sequences import IGNORE, Role
from latent_lab.stages.base import Stage
from latent_lab.stages.codi import CODI
from latent_lab.stages.course import StageCourse
from latent_lab.stages.curriculum import Curriculum
from latent_lab.stages.icot import ICoT
from latent_lab.stages.planning import Planning
from latent_lab.supervision import SupervisedReasoner

SUM = Problem("p", "How many?", ("<<1+2*3=7>>", "<<7=7>>"), "7")
TAGGED = Problem("t", "Is it?", ("[rag]: It is.", "[reason]: So yes."), "True")


def prepared(plan: Plan | None, problem: Problem = SUM, **settings: Any) -> tuple[Planning, Backbone]:
    torch.manual_seed(0)
    backbone = Scratch(layers=1, width=32, heads=2, positions=128).load([problem])
    one = {} if settings.get("words") else {"num_prefix": 1, "num_special": 1}
    stage = Planning(**{**one, **settings})
    stage.plan = plan  # type: ignore[misc]
    stage.prepare(backbone, [problem], None)  # type: ignore[arg-type]
    return stage, backbone


def laid_out(plan: Plan | None, problem: Problem = SUM, **settings: Any) -> str:
    """What the model is to write, as text."""
    stage, backbone = prepared(plan, problem, **settings)
    (encoded,) = stage.encode([problem], backbone.tokenizer)
    sequence = stage.sequence(encoded, backbone.tokens, 0)
    asked = len(encoded.question)
    assert stage.prompt(encoded, backbone.tokens, 0).ids == sequence.ids[:asked]
    assert backbone.tokenizer.decode(sequence.ids[:asked]) == problem.question + "\n"
    assert sequence.labels == (*[IGNORE] * asked, *sequence.ids[asked:])
    assert stage.shape(encoded, 0) == (0, asked, len(sequence.ids) - asked)
    text = backbone.tokenizer.decode(sequence.ids[asked:])
    assert text.endswith("<|endoftext|>")
    return text.removesuffix("<|endoftext|>")


LAYOUTS: list[tuple[Plan | None, dict[str, Any], str]] = [
    (None, {}, "<<1+2*3=7>>\n<<7=7>>\n### 7"),
    (General(), {}, "<prefix_0><prefix_1><<1+2*3=7>>\n<prefix_0><prefix_1><<7=7>>\n<prefix_0><prefix_1>### 7"),
    (General(), {"answer_block": False}, "<prefix_0><prefix_1><<1+2*3=7>>\n<prefix_0><prefix_1><<7=7>>\n### 7"),
    (
        Arithmetic(),
        {},
        "<prefix_0><+_0><*_0><<1+2*3=7>>\n<prefix_0><assignment_0><<7=7>>\n<prefix_0><answer_0>### 7",
    ),
    (
        Arithmetic(several="first"),
        {"num_prefix": 2, "num_special": 2},
        "<prefix_0><prefix_1><+_0><+_1><<1+2*3=7>>\n<prefix_0><prefix_1><assignment_0><assignment_1><<7=7>>\n"
        "<prefix_0><prefix_1><answer_0><answer_1>### 7",
    ),
    (
        Arithmetic(),
        {"form": "[{kind}{number}]", "names": ["+:plus", "answer:so"]},
        "[prefix0][plus0][*0]<<1+2*3=7>>\n[prefix0][assignment0]<<7=7>>\n[prefix0][so0]### 7",
    ),
    (
        Arithmetic(several="first"),
        {"form": "<|{number}:{kind}|>", "names": ["prefix:plan"], "num_special": 2, "place": "plan_only"},
        "<|0:plan|><|0:+|><|1:+|>\n<|0:plan|><|0:assignment|><|1:assignment|>\n<|0:plan|><|0:answer|><|1:answer|>\n### 7",
    ),
    (General(), {"names": ["prefix:plan"]}, "<plan_0><plan_1><<1+2*3=7>>\n<plan_0><plan_1><<7=7>>\n<plan_0><plan_1>### 7"),
    (Arithmetic(), {"num_prefix": 0}, "<+_0><*_0><<1+2*3=7>>\n<assignment_0><<7=7>>\n<answer_0>### 7"),
    (Arithmetic(), {"num_special": 0}, "<prefix_0><<1+2*3=7>>\n<prefix_0><<7=7>>\n<prefix_0>### 7"),
    (Arithmetic(), {"num_prefix": 0, "num_special": 0}, "<<1+2*3=7>>\n<<7=7>>\n### 7"),
    (Arithmetic(assignment=False), {}, "<prefix_0><+_0><*_0><<1+2*3=7>>\n<prefix_0><<7=7>>\n<prefix_0><answer_0>### 7"),
    (
        Arithmetic(several="unique"),
        {"answer_block": False},
        "<prefix_0><+_0><*_0><<1+2*3=7>>\n<prefix_0><assignment_0><<7=7>>\n### 7",
    ),
    (
        Arithmetic(several="collapsed"),
        {},
        "<prefix_0><+*_0><<1+2*3=7>>\n<prefix_0><assignment_0><<7=7>>\n<prefix_0><answer_0>### 7",
    ),
    (
        Arithmetic(control="filler"),
        {},
        "<prefix_0><filler_0><filler_0><<1+2*3=7>>\n<prefix_0><filler_0><<7=7>>\n<prefix_0><filler_0>### 7",
    ),
    (
        Arithmetic(control="position", several="first"),
        {},
        "<prefix_0><position0_0><<1+2*3=7>>\n<prefix_0><position1_0><<7=7>>\n<prefix_0><answer_0>### 7",
    ),
    (Arithmetic(), {"place": "front"}, "<prefix_0><prefix_1><<1+2*3=7>>\n<<7=7>>\n### 7"),
    (General(), {"place": "front"}, "<prefix_0><prefix_1><<1+2*3=7>>\n<<7=7>>\n### 7"),
    (
        Arithmetic(),
        {"place": "plan_first"},
        "<prefix_0><+_0><*_0>\n<prefix_0><assignment_0>\n<prefix_0><answer_0>\n"
        "<prefix_0><+_0><*_0><<1+2*3=7>>\n<prefix_0><assignment_0><<7=7>>\n<prefix_0><answer_0>### 7",
    ),
    (
        Arithmetic(),
        {"place": "plan_first", "answer_block": False},
        "<prefix_0><+_0><*_0>\n<prefix_0><assignment_0>\n<prefix_0><+_0><*_0><<1+2*3=7>>\n<prefix_0><assignment_0><<7=7>>\n### 7",
    ),
    (Arithmetic(), {"place": "plan_only"}, "<prefix_0><+_0><*_0>\n<prefix_0><assignment_0>\n<prefix_0><answer_0>\n### 7"),
    (Arithmetic(), {"place": "plan_only", "answer_block": False}, "<prefix_0><+_0><*_0>\n<prefix_0><assignment_0>\n### 7"),
    (None, {"place": "plan_only"}, "<<1+2*3=7>>\n<<7=7>>\n### 7"),
    (
        Arithmetic(),
        {"words": True},
        "Plan: addition, multiplication. <<1+2*3=7>>\nPlan: assignment. <<7=7>>\nPlan: answer. ### 7",
    ),
    (
        Arithmetic(several="collapsed"),
        {"words": True, "answer_block": False},
        "Plan: addition-multiplication. <<1+2*3=7>>\nPlan: assignment. <<7=7>>\n### 7",
    ),
    (
        Arithmetic(assignment=False),
        {"words": True},
        "Plan: addition, multiplication. <<1+2*3=7>>\nPlan: <<7=7>>\nPlan: answer. ### 7",
    ),
    (
        Arithmetic(control="filler"),
        {"words": True},
        "Plan: filler, filler. <<1+2*3=7>>\nPlan: filler. <<7=7>>\nPlan: filler. ### 7",
    ),
    (
        Arithmetic(),
        {"words": True, "names": ["+:sum", "answer:result"]},
        "Plan: sum, multiplication. <<1+2*3=7>>\nPlan: assignment. <<7=7>>\nPlan: result. ### 7",
    ),
    (General(), {"words": True}, "Plan: <<1+2*3=7>>\nPlan: <<7=7>>\nPlan: ### 7"),
    (General(), {"words": True, "answer_block": False}, "Plan: <<1+2*3=7>>\nPlan: <<7=7>>\n### 7"),
    (Arithmetic(), {"words": True, "place": "front"}, "Plan: <<1+2*3=7>>\n<<7=7>>\n### 7"),
    (
        Arithmetic(),
        {"words": True, "place": "plan_first"},
        "Plan: addition, multiplication.\nPlan: assignment.\nPlan: answer.\n"
        "Plan: addition, multiplication. <<1+2*3=7>>\nPlan: assignment. <<7=7>>\nPlan: answer. ### 7",
    ),
    (
        Arithmetic(),
        {"words": True, "place": "plan_only"},
        "Plan: addition, multiplication.\nPlan: assignment.\nPlan: answer.\n### 7",
    ),
    (
        Arithmetic(),
        {"words": True, "place": "plan_only", "answer_block": False},
        "Plan: addition, multiplication.\nPlan: assignment.\n### 7",
    ),
]


@pytest.mark.parametrize(("plan", "settings", "text"), LAYOUTS)
def test_what_is_written_is_the_table(plan: Plan | None, settings: dict[str, Any], text: str) -> None:
    assert laid_out(plan, **settings) == text


def test_tags_become_tokens_and_are_not_written_even_where_there_are_no_tokens() -> None:
    assert laid_out(MemoryReason(), TAGGED) == (
        "<prefix_0><memory_0>It is.\n<prefix_0><reason_0>So yes.\n<prefix_0><answer_0>### True"
    )
    assert laid_out(MemoryReason(), TAGGED, num_prefix=0, num_special=0) == "It is.\nSo yes.\n### True"
    assert laid_out(MemoryReason(), TAGGED, words=True) == "Plan: memory. It is.\nPlan: reason. So yes.\nPlan: answer. ### True"


@pytest.mark.parametrize(
    ("template", "instruction", "question"),
    [
        ("plain", "", "How many?\n"),
        ("alpaca", "", "### Instruction:\nHow many?\n\n### Response:\n"),
        ("alpaca", "Add.", "### Instruction:\nAdd.\n\n### Input:\nHow many?\n\n### Response:\n"),
        ("chat", "", "user: How many?\nassistant: "),
        ("chat", "Add.", "system: Add.\nuser: How many?\nassistant: "),
    ],
)
@pytest.mark.parametrize("layout", range(len(LAYOUTS)))
def test_every_layout_is_written_after_every_template(layout: int, template: str, instruction: str, question: str) -> None:
    plan, settings, text = LAYOUTS[layout]
    stage, backbone = prepared(plan, template=template, instruction=instruction, **settings)
    backbone.tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "
    (encoded,) = stage.encode([SUM], backbone.tokenizer)
    sequence = stage.sequence(encoded, backbone.tokens, 0)
    assert backbone.tokenizer.decode(sequence.ids) == question + text + "<|endoftext|>"
    assert sequence.ids[: len(encoded.question)] == stage.prompt(encoded, backbone.tokens, 0).ids == encoded.question
    assert sequence.labels == (*[IGNORE] * len(encoded.question), *sequence.ids[len(encoded.question) :])


@pytest.mark.parametrize("made", [Curriculum(kind="cot"), Curriculum(kind="no_cot"), ICoT(), CODI(), Curriculum(stages=[1])])
def test_other_stages_put_questions_by_template_too(made: Stage) -> None:
    _, backbone = prepared(None)
    asked = replace(made, template="alpaca", instruction="Add.")
    (encoded,) = asked.encode([SUM], backbone.tokenizer)
    prompt = asked.prompt(encoded, backbone.tokens, 0, 0)
    assert backbone.tokenizer.decode(prompt.ids).startswith("### Instruction:\nAdd.\n\n### Input:\nHow many?\n\n### Response:\n")
    (plain,) = made.encode([SUM], backbone.tokenizer)
    assert (encoded.steps, encoded.answer, encoded.prefix) == (plain.steps, plain.answer, plain.prefix)


def test_a_token_spelled_out_in_a_problem_stays_text() -> None:
    problem = Problem("p", "What is <+_0>?", ("<<1+2=3>> <+_0>",), "3")
    stage, backbone = prepared(Arithmetic(), problem)
    (encoded,) = stage.encode([problem], backbone.tokenizer)
    sequence = stage.sequence(encoded, backbone.tokens, 0)
    assert sequence.ids.count(backbone.tokenizer.convert_tokens_to_ids("<+_0>")) == 1


@pytest.mark.parametrize(
    ("plan", "prefix", "special", "count"),
    [
        (Arithmetic(), 3, 3, 21),
        (Arithmetic(operators="competition"), 3, 3, 51),
        (MemoryReason(), 3, 4, 19),
        (General(), 3, 3, 6),
        (General(), 6, 0, 6),
        (Arithmetic(control="filler"), 3, 3, 6),
    ],
)
def test_there_are_as_many_new_tokens_as_published(plan: Plan, prefix: int, special: int, count: int) -> None:
    stage, backbone = prepared(plan, num_prefix=prefix, num_special=special)
    assert stage.blocks is not None
    assert len(set(stage.blocks.tokens())) == len(backbone.more) == count


def test_five_clusters_have_tokens_as_published() -> None:
    stage = Planning()
    stage.plan = KMeans(model="some/run", clusters=5)  # type: ignore[misc]
    assert stage.blocks is not None
    assert len(stage.blocks.tokens()) == 3 + 3 * 7


@pytest.mark.parametrize(
    ("plan", "settings", "message"),
    [
        (
            MemoryReason(),
            {"names": ["memry:rag"]},
            "stage.names: given a name for memry; the plan has no such kind; allowed: prefix, answer, assignment, reason, memory",
        ),
        (General(), {"names": ["+:plus"]}, "stage.names: given a name for +; the plan has no such kind; allowed: prefix"),
        (
            General(),
            {"names": ["prefix:plan"], "words": True},
            "stage.names: given a name for prefix; the plan has no such kind; allowed: ",
        ),
        (
            MemoryReason(),
            {"names": ["memory:reason"]},
            "stage.names: two kinds would write <reason_0>; give each a name of its own",
        ),
        (
            MemoryReason(),
            {"names": ["memory:prefix"]},
            "stage.names: two kinds would write <prefix_0>; give each a name of its own",
        ),
        (
            KMeans(model="m", clusters=11),
            {"form": "<{kind}{number}>", "num_special": 11, "names": ["kmeans0:x", "kmeans1:x1"]},
            "stage.names: two kinds would write <x10>; give each a name of its own",
        ),
        (
            MemoryReason(),
            {"names": ["memory:reason"], "words": True},
            "stage.names: two kinds would write reason; give each a name of its own",
        ),
    ],
)
def test_a_name_of_no_kind_or_of_two_is_an_error(plan: Plan, settings: dict[str, Any], message: str) -> None:
    stage = Planning(**settings)
    stage.plan = plan  # type: ignore[misc]
    assert stage.blocks is not None
    with pytest.raises(PlanError) as error:
        stage.blocks.check()
    assert str(error.value) == message


def test_controls_take_the_names_of_the_plan_they_are_beside() -> None:
    for control in CONTROLS:
        names = ["+:plus"]
        expected = "<plus_0>" if control in ("none", "shuffled", "random") else "<+_0>"
        stage, _ = prepared(Arithmetic(control=control), names=names)
        assert stage.blocks is not None
        assert (expected in stage.blocks.tokens()) is (expected == "<plus_0>")


def test_roles_tell_planning_tokens_from_steps_and_answer() -> None:
    stage, backbone = prepared(Arithmetic())
    (encoded,) = stage.encode([SUM], backbone.tokenizer)
    sequence = stage.sequence(encoded, backbone.tokens, 0)
    by_role = {role: [i for i, r in zip(sequence.ids, sequence.roles, strict=True) if r == role] for role in Role}
    assert backbone.tokenizer.decode(by_role[Role.PLAN]) == "<prefix_0><+_0><*_0><prefix_0><assignment_0><prefix_0><answer_0>"
    assert backbone.tokenizer.decode(by_role[Role.STEP]) == "<<1+2*3=7>>\n<<7=7>>\n"
    assert backbone.tokenizer.decode(by_role[Role.ANSWER]) == "### 7<|endoftext|>"


# What replies say

REPLIES = {
    "steps": [
        ("<prefix_0><+_0><*_0>1\n<prefix_0><assignment_0>2\n<prefix_0><answer_0>### 7", ["+ *", "assignment"], True),
        ("<prefix_0><answer_0>### 7", [], True),
        ("<prefix_0><+_0>1\n### 7", ["+"], False),  # the answer has no block
        ("<prefix_0>1\n<prefix_0><answer_0>### 7", [], False),  # a block without a kind
        ("<+_0>1\n<prefix_0><answer_0>### 7", [], False),  # a block without its prefix
        ("<prefix_0><+_0>1 <+_0>2\n<prefix_0><answer_0>### 7", ["+"], False),  # a token inside a step
        ("1\n<prefix_0><answer_0>### 7", [], False),  # a step without a block
        ("<prefix_0><answer_0>1\n<prefix_0><answer_0>### 7", [], False),  # a step announced as the answer
        ("<prefix_0><+_0>1\n<prefix_0><answer_0>### 7\n", ["+"], False),  # more after the answer
        ("1\n### 7", [], False),
        ("", [], False),
    ],
    "front": [
        ("<prefix_0><prefix_1>1\n2\n### 7", [], True),
        ("<prefix_0><prefix_1>1\n<prefix_0>2\n### 7", [], False),
        ("1\n2\n### 7", [], False),
    ],
    "plan_first": [
        ("<prefix_0><+_0>\n<prefix_0><answer_0>\n<prefix_0><+_0>1\n<prefix_0><answer_0>### 7", ["+"], True),
        ("<prefix_0><+_0>1\n<prefix_0><answer_0>### 7", ["+"], False),
    ],
    "plan_only": [
        ("<prefix_0><+_0><*_0>\n<prefix_0><-_0>\n<prefix_0><answer_0>\n### 7", ["+ *", "-"], True),
        ("<prefix_0><+_0>\n### 7", ["+"], False),
        ("<prefix_0><+_0>1\n<prefix_0><answer_0>\n### 7", [], False),
    ],
}


def test_a_reply_in_words_is_read_where_its_lines_begin() -> None:
    stage, backbone = prepared(Arithmetic(), words=True)
    (encoded,) = stage.encode([SUM], backbone.tokenizer)
    for text, kinds, is_whole, count in (
        ("Plan: addition. 1\nPlan: subtraction, addition. 2\nPlan: answer. ### 7", ["+", "- +"], True, 7),
        ("Plan: addition.1\nPlan: answer. ### 7", ["+"], True, 4),  # tokenizers differ in the blank after it
        ("Plan: sum. 1\nPlan: answer. ### 7", [], False, 3),
        ("1 Plan: addition. 2\nPlan: answer. ### 7", [], False, 2),
        ("Plan: addition. 1\n### 7", ["+"], False, 2),
    ):
        ids = backbone.tokenizer(text, add_special_tokens=False)["input_ids"]
        noted = stage.columns(encoded, ids)
        assert (noted["plan"], noted["plan_well_formed"], noted["plan_tokens"]) == (kinds, is_whole, count), text
        assert stage.plain(ids) == ids
        assert noted["plan_gold"] == ["+ *", "assignment"]
    assert backbone.more == ()


@pytest.mark.parametrize(("place", "text", "kinds", "is_whole"), [(p, *row) for p, rows in REPLIES.items() for row in rows])
def test_a_reply_is_read_as_the_table_says(place: str, text: str, kinds: list[str], is_whole: bool) -> None:
    stage, backbone = prepared(Arithmetic(), place=place)
    (encoded,) = stage.encode([SUM], backbone.tokenizer)
    ids = backbone.tokenizer(text, add_special_tokens=False)["input_ids"]
    noted = stage.columns(encoded, ids)
    assert (noted["plan"], noted["plan_well_formed"]) == (kinds, is_whole)
    assert noted["plan_gold"] == ([] if place == "front" else ["+ *", "assignment"])
    assert noted["plan_tokens"] == text.count("_")
    assert "_" not in backbone.tokenizer.decode(stage.plain(ids))


@pytest.mark.parametrize(("plan", "settings", "text"), [row for row in LAYOUTS if row[0] and row[2] != LAYOUTS[0][2]])
def test_the_gold_chain_is_well_formed_and_agrees_with_itself(plan: Plan, settings: dict[str, Any], text: str) -> None:
    stage, backbone = prepared(plan, **settings)
    (encoded,) = stage.encode([SUM], backbone.tokenizer)
    noted = stage.columns(encoded, backbone.tokenizer(text, add_special_tokens=False)["input_ids"])
    assert noted["plan_well_formed"]
    assert noted["plan"] == noted["plan_gold"]
    is_typed = plan.is_typed and settings.get("place") != "front" and settings.get("num_special") != 0
    assert len(noted["plan"]) == (2 if is_typed else 0)


# What tokens weigh


def test_weights_of_roles_give_the_weighted_mean() -> None:
    stage, backbone = prepared(Arithmetic(), plan_weight=0.0, step_weight=0.5, answer_weight=2.0)
    (encoded,) = stage.encode([SUM], backbone.tokenizer)
    sequence = stage.sequence(encoded, backbone.tokens, 0)
    batch = collate([sequence], backbone.pad, with_roles=True)
    reasoner = LatentReasoner(backbone.model.eval(), backbone.tokens)
    learner = SupervisedReasoner(reasoner, None, 0.0, role_weights=stage.role_weights())
    with torch.no_grad():
        logits = backbone.model(batch.input_ids).logits[0, :-1].log_softmax(-1)
        sums = learner(batch)
    weights = {Role.STEP: 0.5, Role.ANSWER: 2.0}
    each = [
        (weights.get(role, 0.0), -float(logits[at - 1, i]))
        for at, (role, i) in enumerate(zip(sequence.roles, sequence.ids, strict=True))
    ]
    assert float(sums["loss"]) == pytest.approx(sum(w * loss for w, loss in each), rel=1e-4)
    assert learner.counts(batch)["loss"] == sum(w for w, _ in each)


def test_equal_weights_leave_the_loss_as_it_is_everywhere() -> None:
    assert Planning().role_weights() == {}
    stage, backbone = prepared(Arithmetic())
    (encoded,) = stage.encode([SUM], backbone.tokenizer)
    batch = collate([stage.sequence(encoded, backbone.tokens, 0)], backbone.pad, with_roles=True)
    reasoner = LatentReasoner(backbone.model.eval(), backbone.tokens)
    plain, weighted = (SupervisedReasoner(reasoner, None, 0.0, role_weights=weights) for weights in (None, {Role.PLAN: 1.0}))
    with torch.no_grad():
        assert float(plain(batch)["loss"]) == pytest.approx(float(weighted(batch)["loss"]))
    assert plain.counts(batch)["loss"] == weighted.counts(batch)["loss"]


# Settings


def test_the_plan_is_a_group_beside_the_stage() -> None:
    made = job("train", ["stage=planning", "plan=arithmetic", "plan.several=first", "stage.num_prefix=2"])
    assert made.config.stage == Planning(num_prefix=2)
    assert made.config.stage.plan == Arithmetic(several="first")
    assert made.slug == "stage=planning,plan=arithmetic,plan.several=first,stage.num_prefix=2"
    assert job("train", ["stage=planning"]).config.stage.plan is None
    assert Planning(epochs=[2.0]).phases() == [Phase(0, 2.0)]
    with pytest.raises(ConfigError) as error:
        job("train", ["stage=cot", "plan=arithmetic"])
    assert str(error.value) == "plan: given Arithmetic; this stage writes no plan; allowed: none, or stage=planning"
    with pytest.raises(ConfigError) as error:
        job("train", ["stage=planning", "stage.words=true"])
    assert (
        str(error.value) == "stage.words: given True; there is no plan to write in words; allowed: false, or a plan= beside none"
    )
    for option, reason in (
        ("superposition", "a graph in symbols is no text"),
        ("oracle", "an oracle is asked in words of its own"),
    ):
        with pytest.raises(ConfigError, match=rf"^stage\.template: given chat; {reason}; allowed: plain$"):
            job("train", [f"stage={option}", "stage.template=chat"])


def test_only_a_clustering_plan_without_a_model_reads_another_run() -> None:
    asked = job("train", ["stage=planning", "plan=vae", "plan.clusters=3", "stage.num_prefix=1", "seed=2", "name=mine"])
    read = asked.config.stage.reads(asked)
    assert read is not None
    assert (read.slug, asked.config.plan.without) == ("stage=planning,plan=none,seed=2,stage.num_prefix=1",) * 2
    for words in (["plan=vae", "plan.model=other"], ["plan=arithmetic"], ["plan=none"]):
        other = job("train", ["stage=planning", *words])
        assert other.config.stage.reads(other) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": [1.0, 2.0]}, "epochs=[1.0, 2.0]: at most one for each of stages=[0]"),
        ({"num_prefix": -1}, "num_prefix=-1: allowed are 0 and more"),
        ({"plan_weight": -1.0}, "plan_weight=-1.0: allowed are 0 and more"),
        ({"place": "end"}, "place=end: allowed are steps, front, plan_first, plan_only"),
        ({"words": True, "num_prefix": 1}, "num_prefix=1: words=true has no planning tokens; allowed: leave it out"),
        ({"words": True, "text_sees": "segment"}, "text_sees=segment: words=true has no planning tokens; allowed: leave it out"),
        ({"template": "chatml"}, "template=chatml: allowed are plain, alpaca, chat"),
        ({"instruction": "Add."}, "instruction=Add.: template=plain has no place for it; allowed: alpaca, chat"),
        (
            {"words": True, "form": "[{kind}{number}]"},
            "form=[{kind}{number}]: words=true has no planning tokens; allowed: leave it out",
        ),
        ({"form": "<{kind}>"}, "form=<{kind}>: allowed are texts without blanks that have {kind} and {number} once each"),
        (
            {"form": "<{kind} {number}>"},
            "form=<{kind} {number}>: allowed are texts without blanks that have {kind} and {number} once each",
        ),
        ({"names": ["+:a b"]}, "names=['+:a b']: allowed are names without blanks, one for each kind, as in [memory:rag]"),
        ({"names": ["plus"]}, "names=['plus']: allowed are names without blanks, one for each kind, as in [memory:rag]"),
        (
            {"names": ["+:a", "+:b"]},
            "names=['+:a', '+:b']: allowed are names without blanks, one for each kind, as in [memory:rag]",
        ),
        ({"rows_from": "x"}, "rows_from=x: allowed are word, mean, mean_noise, centroid, random"),
        (
            {"plan_weight": 0.0, "step_weight": 0.0, "answer_weight": 0.0},
            "answer_weight=0.0: one of the three weights must be above 0",
        ),
    ],
)
def test_an_impossible_setting_says_what_is_allowed(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Planning(**options)


def test_a_plan_that_was_not_kept_is_missed(tmp_path: Any) -> None:
    stage, _ = prepared(Arithmetic())
    with pytest.raises(PlanError, match=r"holds no plan\.json"):
        stage.restore(tmp_path, tmp_path)


# What goes into one batch


def test_batches_by_length_leave_less_padding_and_hold_every_problem_once() -> None:
    """Questions and chains of all lengths, so that neither tells the other."""
    problems = [Problem(f"{i}", "1" * (i * 7 % 41), ("2" * (i * 11 % 37),), "3") for i in range(320)]
    padding = {}
    for by in ("shape", "length"):
        words = [
            "stage=planning",
            "plan=general",
            f"batch_by={by}",
            "batch_size=8",
            "model.layers=1",
            "model.width=32",
            "model.heads=2",
        ]
        config = job("train", words).config
        backbone = config.model.load(problems)
        config.stage.prepare(backbone, problems, Path())
        with accelerator("cpu", "fp32") as at:
            course = StageCourse(config, at, backbone, problems, problems[:1])
        batches = course.batches(course.phases[0], 0)
        assert batches == course.batches(course.phases[0], 0) != course.batches(course.phases[0], 1)
        assert sorted(i for batch in batches for i in batch) == list(range(320))
        masks = [course.collate(course.phases[0], 0, batch).attention_mask for batch in batches]
        padding[by] = 1 - sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)
    assert padding["length"] < 0.02 < 0.1 < padding["shape"]
