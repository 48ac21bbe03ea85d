"""Solved problems before a question: which, in what layout, and that there is room for them."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from latent_lab.backbone import ModelError, Pretrained, Scratch
from latent_lab.config import ConfigError
from latent_lab.grading.evaluate import Solver
from latent_lab.grading.session import check_room, show_examples, trained_config
from latent_lab.plans.arithmetic import Arithmetic
from latent_lab.plans.base import Plan, PlanError
from latent_lab.plans.examples import Examples
from latent_lab.plans.measures import told
from latent_lab.problems import Problem, fingerprint
from latent_lab.reasoner import LatentReasoner
from latent_lab.sequences import IGNORE, Role
from latent_lab.stages.planning import Planning
from tests.tiny import evaluate, rows, save_hub_model, train

ASKED = Problem("a", "How many?", ("<<1+2=3>>",), "3")
POOL = [Problem("b", "Who?", ("<<3*2=6>>",), "6"), Problem("c", "How many?", ("<<4+4=8>>",), "8"), Problem("d", "When?", (), "9")]
MANY = [Problem(str(i), f"Question {i % 30}?", (f"<<{i}+1={i + 1}>>",), str(i + 1)) for i in range(40)]


def ready(backbone: Any, plan: Plan | None = None, **settings: Any) -> Planning:
    stage = Planning(**{"num_prefix": 1, "num_special": 1, **settings})
    stage.plan = plan  # type: ignore[misc]
    stage.prepare(backbone, [ASKED, *POOL], None)  # type: ignore[arg-type]
    stage.show(POOL, seed=1)
    return stage


LAYOUTS: list[tuple[Plan | None, dict[str, Any], str]] = [
    (None, {}, "When?\n### 9<END>Who?\n<<3*2=6>>\n### 6<END>How many?\n"),
    (
        Arithmetic(),
        {},
        "When?\n<prefix_0><answer_0>### 9<END>Who?\n<prefix_0><*_0><<3*2=6>>\n<prefix_0><answer_0>### 6<END>How many?\n",
    ),
    (
        Arithmetic(),
        {"place": "plan_only"},
        "When?\n<prefix_0><answer_0>\n### 9<END>Who?\n<prefix_0><*_0>\n<prefix_0><answer_0>\n### 6<END>How many?\n",
    ),
    (
        Arithmetic(),
        {"words": True, "num_prefix": 3, "num_special": 3},
        "When?\nPlan: answer. ### 9<END>Who?\nPlan: multiplication. <<3*2=6>>\nPlan: answer. ### 6<END>How many?\n",
    ),
    (
        Arithmetic(),
        {"template": "alpaca"},
        "### Instruction:\nWhen?\n\n### Response:\n<prefix_0><answer_0>### 9<END>"
        "### Instruction:\nWho?\n\n### Response:\n<prefix_0><*_0><<3*2=6>>\n<prefix_0><answer_0>### 6<END>"
        "### Instruction:\nHow many?\n\n### Response:\n",
    ),
    (
        None,
        {"template": "chat", "instruction": "Add."},
        "system: Add.\nuser: When?\nassistant: ### 9<END>system: Add.\nuser: Who?\nassistant: <<3*2=6>>\n### 6<END>"
        "system: Add.\nuser: How many?\nassistant: ",
    ),
]


@pytest.mark.parametrize(("plan", "settings", "text"), LAYOUTS)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_examples_are_laid_out_as_they_are_learned(
    family: str, plan: Plan | None, settings: dict[str, Any], text: str, tmp_path: Path
) -> None:
    """Llama's tokenizer begins every text with a token of its own: it stands once, before everything."""
    backbone = Pretrained(str(save_hub_model(tmp_path, family))).load()
    begin = "<|begin|>" if family == "llama" else ""
    chat = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "
    backbone.tokenizer.chat_template = begin + chat
    stage = ready(backbone, plan, shots=2, **settings)
    (encoded,) = stage.encode([ASKED], backbone.tokenizer)
    prompt = stage.prompt(encoded, backbone.tokens, 0)
    assert backbone.tokenizer.decode(prompt.ids) == begin + text.replace("<END>", "<|end|>")
    stage.shots = 0
    (alone,) = stage.encode([ASKED], backbone.tokenizer)
    assert (alone.steps, alone.answer, alone.plans, alone.overview) == (
        encoded.steps, encoded.answer, encoded.plans, encoded.overview,
    )  # fmt: skip
    laid, bare = (stage.sequence(e, backbone.tokens, 0) for e in (encoded, alone))
    assert laid.ids == (*prompt.ids, *bare.ids[len(alone.question) :])
    assert laid.labels == (*[IGNORE] * len(prompt.ids), *bare.labels[len(alone.question) :])  # examples are never learned
    assert set(laid.roles[: len(prompt.ids)]) == {Role.QUESTION}


def test_no_example_asks_the_same_and_all_depend_on_seed_and_id_alone() -> None:
    seen = set()
    for seed in range(5):
        examples = Examples(MANY, seed)
        for p in MANY:
            drawn = examples.drawn(p, 4)
            assert len({each.id for each in drawn}) == 4
            assert p.question not in {each.question for each in drawn}
            assert drawn == Examples(MANY, seed).drawn(p, 4)
            assert drawn[:2] == examples.drawn(Problem(p.id, p.question, (), ""), 4)[:2]
            seen.add(tuple(each.id for each in drawn))
    assert len(seen) > 150  # of 200
    with pytest.raises(PlanError) as error:
        Examples(MANY, 0).drawn(MANY[0], 39)
    assert str(error.value) == "shots=39: there are 38 training problems besides 0; allowed: up to that"


def test_similar_examples_have_the_most_similar_questions_the_most_similar_last() -> None:
    pool = [
        Problem("0", "Tom has 3 red apples.", (), "1"),
        Problem("1", "Ann sells fish.", ("How many pears has Tom?",), "2"),  # a chain has no say
        Problem("2", "How many pears has Tom?", (), "3"),
        Problem("3", "How many pears has Ann?", (), "4"),
        Problem("4", "Who came?", (), "5"),
    ]
    examples = Examples(pool, seed=0, by="similar")
    asked = Problem("new", "How many pears has Tom?", (), "9")
    assert [p.id for p in examples.drawn(asked, 2)] == ["0", "3"]  # 2 asks the same
    assert [p.id for p in examples.drawn(asked, 4)] == ["4", "1", "0", "3"]  # of equals the earlier counts as nearer
    assert [p.id for p in examples.drawn(replace(asked, id="other", steps=("Who?",), answer="1"), 2)] == ["0", "3"]
    assert examples.drawn(asked, 2) == Examples(pool, seed=7, by="similar").drawn(asked, 2)
    with pytest.raises(PlanError, match=r"^shots=5: there are 4 training problems besides new; allowed: up to that$"):
        examples.drawn(asked, 5)


def test_every_problem_has_its_own_examples_whatever_else_is_asked() -> None:
    backbone = Scratch(layers=1, width=32, heads=2, positions=128).load([ASKED, *POOL])
    stage = ready(backbone, Arithmetic(), shots=1)
    others = [ASKED, *POOL]
    together = stage.encode(others, backbone.tokenizer)
    assert together == [e for p in others for e in stage.encode([p], backbone.tokenizer)]


def test_the_gold_plan_is_written_after_examples_too() -> None:
    torch.manual_seed(0)
    backbone = Scratch(layers=1, width=32, heads=2, positions=128).load([ASKED, *POOL])
    stage = ready(backbone, Arithmetic(), shots=2)
    encoded = stage.encode([ASKED], backbone.tokenizer)
    assert stage.reading is not None
    solver = Solver(LatentReasoner(backbone.model, backbone.tokens).eval(), backbone, stage, 0, 0, max_new_tokens=8)
    (row,) = told(solver, [ASKED], encoded, stage.reading)
    assert row["plan_tokens"] >= 2
    assert row["plan_gold"] == ["+"]


def test_a_problem_without_room_is_named() -> None:
    backbone = Scratch(layers=1, width=32, heads=2, positions=30).load([ASKED, *POOL])
    stage = ready(backbone, Arithmetic(), shots=2)
    encoded = stage.encode([ASKED], backbone.tokenizer)
    tokens = len(encoded[0].question)
    assert tokens >= 30
    with pytest.raises(ModelError) as error:
        check_room(encoded, stage, backbone)
    assert str(error.value) == (
        f"problem a: with 2 examples before it its prompt has {tokens} tokens; the model has positions for 30; "
        "allowed: fewer examples (stage.shots, or task.shots in an evaluation)"
    )
    stage.shots = 0
    check_room(encoded, stage, backbone)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shots": -1}, "shots=-1: allowed are 0 and more"),
        ({"shots_by": "similar"}, "shots_by=similar: shots=0 shows no examples; allowed: leave it out, or shots of 1 and more"),
        ({"shots": 1, "stages": [1]}, "shots=1: an example has no thoughts to show; allowed with stages=[1]: 0"),
        (
            {"shots": 1, "text_sees": "segment"},
            "shots=1: a question's examples would be hidden from it; allowed with text_sees=segment: 0",
        ),
    ],
)
def test_an_impossible_setting_says_what_is_allowed(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=f"^{re.escape(message)}$"):
        Planning(**settings)


def test_a_run_is_trained_and_asked_with_examples_and_asked_with_more_or_none(tmp_path: Path) -> None:
    shown = ["stage=planning", "plan=arithmetic", "stage.shots=2", "max_steps=2", "model.positions=256"]
    run = train(tmp_path, *shown)
    assert rows(run / "samples.jsonl")[0]["tokens"] > 0
    texts = {}
    for shots in (None, 0, 4):
        out = tmp_path / str(shots)
        found = evaluate(run, *([] if shots is None else [f"task.shots={shots}"]), f"out={out}", "split=train", "limit=3")
        assert found["accuracy"]["n"] == 3
        texts[shots] = [row["output"] for row in rows(out / "samples.jsonl")]
        stored = yaml.safe_load((out / "config.yaml").read_text()).get("examples")
        assert stored == (fingerprint(trained_config(run).dataset.load("train")) if shots != 0 else None)
    assert texts[None] != texts[0] or texts[None] != texts[4]
    similar = trained_config(run)
    show_examples(similar, 4, "similar")
    assert (similar.stage.shots, similar.stage.examples.by) == (4, "similar")
    assert evaluate(run, "task.shots_by=similar", f"out={tmp_path / 'similar'}", "limit=2")["accuracy"]["n"] == 2
    with pytest.raises(ConfigError) as error:
        evaluate(run, "task.shots_by=similar", "task.shots=0")
    assert str(error.value) == ("task.shots_by: given similar; no examples are shown; allowed: null, or task.shots of 1 and more")
    with pytest.raises(ConfigError, match=r"^task\.shots_by: given near; allowed: random, similar, or null$"):
        evaluate(run, "task.shots_by=near")
    with pytest.raises(ModelError, match=r"^problem .*: with 30 examples before it its prompt has \d+ tokens; the model has"):
        evaluate(run, "task.shots=30", f"out={tmp_path / 'crowded'}")
    with pytest.raises(ModelError, match=r"^problem .*: with 30 examples before it"):
        train(tmp_path, *shown, "stage.shots=30", "name=many")
    cot = train(tmp_path, "stage=cot", "max_steps=1", "name=cot")
    with pytest.raises(ConfigError) as error:
        evaluate(cot, "task.shots=2")
    assert str(error.value) == (
        "task.shots: given 2; this run's stage shows no examples; allowed: null, or runs of stage=planning"
    )
    with pytest.raises(ConfigError, match=r"^task\.shots: given -1; allowed: 0 and more, or null$"):
        evaluate(run, "task.shots=-1")
