"""Free-running evaluation: what reaches the prompt, what each control does, and what counts as right.

The model is a real GPT-2 whose weights are set by hand: it writes ``### ``, one digit and the end, and which digit it writes
depends on everything it has seen and thought, its thoughts included.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from latent_lab.backbone import Backbone, digit_tokenizer, marker_ids
from latent_lab.grading.answers import Equivalence, Grading
from latent_lab.grading.evaluate import Reply, Solver, by, evenly, floors, grade, in_words, majority, summary, teacher_forced
from latent_lab.problems import Problem
from latent_lab.problems.arithmetic import Arithmetic, addition
from latent_lab.reasoner import LatentReasoner, ThoughtEdit
from latent_lab.sequences import Encoded, Sequence, encode, join
from latent_lab.stages.curriculum import Curriculum
from latent_lab.stages.icot import ICoT

PROBLEMS = Arithmetic(digits=[1, 2, 4], probabilities=[0.3, 0.4, 0.3], train_size=23).load("train")
WIDTH = 48


def ruled_backbone(seed: int = 1, rules: dict[str, str | None] | None = None) -> Backbone:
    """A random GPT-2 that after token A always writes token B (``rules``; None: some digit, chosen by all it has seen)."""
    rules = rules or {"<|end-latent|>": "### ", "### ": None, **dict.fromkeys("0123456789", "<|endoftext|>")}
    tokenizer = digit_tokenizer(PROBLEMS, 4096)
    torch.manual_seed(seed)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer), n_positions=128, n_embd=WIDTH, n_layer=2, n_head=2, initializer_range=0.5,
            tie_word_embeddings=False, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip
    body = model.transformer
    digits = tokenizer.convert_tokens_to_ids(list("0123456789"))
    with torch.no_grad():
        # A dimension for each rule, and one that stays empty; only the embeddings write to them, only the output table reads.
        k = len(rules) + 1
        body.wte.weight[:, :k] = 0
        body.wpe.weight[:, :k] = 0
        for block in body.h:
            for output in (block.attn.c_proj, block.mlp.c_proj):
                output.weight[:, :k] = 0
        model.lm_head.weight[:] = 0
        model.lm_head.weight[digits, k:] = torch.randn(10, WIDTH - k)
        for dimension, (before, after) in enumerate(rules.items()):
            body.wte.weight[tokenizer.convert_tokens_to_ids(before), dimension] = 20.0
            written = digits if after is None else [tokenizer.convert_tokens_to_ids(after)]
            model.lm_head.weight[written, dimension] += 50.0
            model.lm_head.weight[written, k - 1] -= 50.0  # the layer norm shifts both alike
    return Backbone(model.eval(), tokenizer, marker_ids(tokenizer))


def solver_on(backbone: Backbone, layout: Curriculum | None = None, **settings: Any) -> Solver:
    settings = {"stage": 3, "num_slots": 3, "max_new_tokens": 6} | settings
    return Solver(LatentReasoner(backbone.model, backbone.tokens), backbone, layout or Curriculum(stages=[3]), **settings)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return ruled_backbone()


@pytest.fixture(scope="module")
def encoded(backbone: Backbone) -> list[Encoded]:
    return encode(PROBLEMS, backbone.tokenizer)


@pytest.fixture(scope="module")
def replies(backbone: Backbone, encoded: list[Encoded]) -> list[Reply]:
    return solver_on(backbone).replies(encoded)


def texts(replies: list[Reply]) -> list[str]:
    return [reply.text for reply in replies]


def by_hand(
    backbone: Backbone, problem: Encoded, num_slots: int, edit: ThoughtEdit | None = None, max_new_tokens: int = 6
) -> str:
    """What the model writes for one problem, without the solver: question, markers and slots, then the latent loop."""
    tokens, question = backbone.tokens, list(problem.question)
    ids = torch.tensor([[*question, tokens.start, *[tokens.latent] * num_slots, tokens.end]])
    reasoner = LatentReasoner(backbone.model, tokens)
    (row,) = reasoner.generate(ids, max_new_tokens=max_new_tokens, eos_token_id=0, pad_token_id=0, edit=edit).tolist()
    return backbone.tokenizer.decode(row[: row.index(0)] if 0 in row else row)


# What the model writes


def test_the_hand_made_model_writes_an_answer_and_stops(replies: list[Reply]) -> None:
    assert [reply.id for reply in replies] == [p.id for p in PROBLEMS]
    assert all(reply.text[:4] == "### " and reply.text[4:] in set("0123456789") for reply in replies)
    assert len(set(texts(replies))) >= 4
    assert {(reply.num_tokens, reply.num_thoughts, reply.stopped) for reply in replies} == {(3, 3, True)}


def test_replies_are_those_of_the_latent_loop_alone(backbone: Backbone, encoded: list[Encoded], replies: list[Reply]) -> None:
    assert texts(replies) == [by_hand(backbone, p, 3) for p in encoded]


@pytest.mark.parametrize("control", [None, "removed", "zeroed", "another_problem"])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_no_reply_depends_on_what_stands_beside_it_in_the_batch(
    backbone: Backbone, encoded: list[Encoded], control: str | None, batch_size: int
) -> None:
    together = solver_on(backbone, batch_size=256).replies(encoded, control)
    assert solver_on(backbone, batch_size=batch_size).replies(encoded, control) == together


def test_a_problem_that_is_there_twice_is_refused(backbone: Backbone, encoded: list[Encoded]) -> None:
    with pytest.raises(RuntimeError, match=r"^3 replies to 2 ids for 3 problems: each must be answered once$"):
        solver_on(backbone).replies([encoded[0], encoded[1], encoded[0]])


def test_nothing_of_the_gold_chain_or_answer_reaches_the_model(
    backbone: Backbone, encoded: list[Encoded], replies: list[Reply]
) -> None:
    others = [replace(p, steps=encoded[i - 1].steps * 2, answer=encoded[i - 1].answer) for i, p in enumerate(encoded)]
    assert solver_on(backbone).replies(others) == replies
    (prompt,) = solver_on(backbone).prompts(encoded[:1])
    tokens = backbone.tokens
    assert prompt.ids == (*encoded[0].question, tokens.start, tokens.latent, tokens.latent, tokens.latent, tokens.end)
    assert set(prompt.labels) == {-100}


def test_the_leak_must_be_asked_for_and_counts_the_gold_steps(
    backbone: Backbone, encoded: list[Encoded], replies: list[Reply]
) -> None:
    leaky = solver_on(backbone, thoughts_by="gold_chain_leak").replies(encoded)
    assert [reply.num_thoughts for reply in leaky] == [min(len(p.steps), 3) for p in encoded]
    assert {len(p.steps) for p in encoded} >= {1, 2, 4}
    cut = solver_on(backbone, thoughts_by="gold_chain_leak").replies([replace(p, steps=p.steps[:1]) for p in encoded])
    assert {reply.num_thoughts for reply in cut} == {1}
    assert texts(cut) != texts(leaky) != texts(replies)


def test_two_thoughts_a_step_make_two_slots_a_step(backbone: Backbone, encoded: list[Encoded]) -> None:
    layout = Curriculum(stages=[3], latents_per_step=2, max_stage=3)
    leaky = solver_on(backbone, layout, num_slots=6, thoughts_by="gold_chain_leak").replies(encoded)
    assert [reply.num_thoughts for reply in leaky] == [2 * min(len(p.steps), 3) for p in encoded]


def test_a_baseline_has_neither_markers_nor_thoughts(encoded: list[Encoded]) -> None:
    made = ruled_backbone(rules={"\n": "### ", "### ": None, **dict.fromkeys("0123456789", "<|endoftext|>")})
    solver = solver_on(made, Curriculum(kind="no_cot"), num_slots=0)
    assert [s.ids for s in solver.prompts(encoded[:2])] == [p.question for p in encoded[:2]]
    assert {(r.text[:4], r.num_thoughts, r.stopped) for r in solver.replies(encoded)} == {("### ", 0, True)}


def test_where_the_model_writes_first_it_says_itself_when_it_begins_to_think(encoded: list[Encoded]) -> None:
    """``latents_from=end``: after the question it writes ``carry ``, begins to think by itself, and then answers."""
    rules = {"\n": "carry ", "carry ": "<|start-latent|>", "<|end-latent|>": "### ", "### ": None}
    made = ruled_backbone(rules=rules | dict.fromkeys("0123456789", "<|endoftext|>"))
    (word,) = made.tokenizer("carry ")["input_ids"]
    layout = Curriculum(stages=[3], latents_from="end")
    solver, tokens = solver_on(made, layout), made.tokens
    first = solver.prompts(encoded[:1])[0]
    assert first.ids == (*encoded[0].question, word, tokens.start, *[tokens.latent] * 3, tokens.end)
    replies = solver.replies(encoded)
    assert texts(replies) == ["carry " + by_hand(made, replace(p, question=(*p.question, word)), 3) for p in encoded]
    assert {(reply.num_tokens, reply.num_thoughts, reply.stopped) for reply in replies} == {(4, 3, True)}
    assert solver_on(made, layout, batch_size=4).replies(encoded) == replies
    # Which steps are gold makes no difference to what it writes.
    assert solver.replies([replace(p, steps=()) for p in encoded]) == replies
    # The donor writes first, too.
    donated = solver.replies(encoded, "another_problem")
    assert {reply.text[:10] for reply in donated} == {"carry ### "}
    assert texts(donated) != texts(replies)


def test_one_who_never_begins_to_think_is_made_to_after_the_longest_answer(encoded: list[Encoded]) -> None:
    made = ruled_backbone(rules={"\n": "carry ", "carry ": "carry ", "<|end-latent|>": "### ", "### ": "<|endoftext|>"})
    (reply,) = solver_on(made, Curriculum(stages=[3], latents_from="end")).replies(encoded[:1])
    assert (reply.text, reply.num_tokens, reply.num_thoughts) == ("carry " * 6 + "### ", 8, 3)


# Controls and floors


def test_removed_leaves_the_slots_out_and_keeps_the_markers(
    backbone: Backbone, encoded: list[Encoded], replies: list[Reply]
) -> None:
    removed = solver_on(backbone).replies(encoded, "removed")
    assert texts(removed) == [by_hand(backbone, p, 0) for p in encoded]
    assert {reply.num_thoughts for reply in removed} == {0}
    assert texts(removed) != texts(replies)


def test_zeroed_feeds_the_zero_vector_into_every_slot(backbone: Backbone, encoded: list[Encoded], replies: list[Reply]) -> None:
    zeroed = solver_on(backbone).replies(encoded, "zeroed")
    assert texts(zeroed) == [by_hand(backbone, p, 3, lambda slot, thoughts, active: 0 * thoughts) for p in encoded]
    assert texts(zeroed) != texts(replies)


def test_another_problem_feeds_in_what_another_row_thinks(
    backbone: Backbone, encoded: list[Encoded], replies: list[Reply]
) -> None:
    donated = solver_on(backbone).replies(encoded, "another_problem")
    solver = solver_on(backbone)
    thoughts = {p.id: solver.thoughts([p])[0] for p in encoded}
    ordered = sorted(encoded, key=lambda p: (len(p.question), p.id))
    donor = {p.id: ordered[i - 1].id for i, p in enumerate(ordered)}
    assert sorted(donor.values()) == sorted(donor)
    assert all(one != other for one, other in donor.items())

    def thinking_of(id: str) -> ThoughtEdit:
        return lambda slot, real, active: thoughts[id][slot][None]

    assert texts(donated) == [by_hand(backbone, p, 3, thinking_of(donor[p.id])) for p in encoded]
    assert texts(donated) != texts(replies)
    # Fed its own thoughts in the same way, each says what it says by itself.
    assert texts(replies) == [by_hand(backbone, p, 3, thinking_of(p.id)) for p in encoded]


def test_a_donor_thinks_in_as_many_slots_as_are_filled(backbone: Backbone, encoded: list[Encoded]) -> None:
    solver = solver_on(backbone, thoughts_by="gold_chain_leak")
    assert [r.num_thoughts for r in solver.replies(encoded, "another_problem")] == [min(len(p.steps), 3) for p in encoded]


def test_thoughts_are_those_of_the_prompt(backbone: Backbone, encoded: list[Encoded]) -> None:
    solver = solver_on(backbone)
    together = solver.thoughts(encoded)
    assert together.shape == (23, 3, WIDTH)
    for i in (0, 7, 22):
        torch.testing.assert_close(solver.thoughts([encoded[i]])[0], together[i], rtol=1e-4, atol=1e-4)


def test_floors_are_the_accuracies_of_the_same_model_under_each_control(
    backbone: Backbone, encoded: list[Encoded], replies: list[Reply]
) -> None:
    """Told that its own answers are right, the model is right in all; under a control, where it still says the same."""
    golds = [replace_answer(p, reply.text[4:]) for p, reply in zip(PROBLEMS, replies, strict=True)]
    solver = solver_on(backbone)
    assert summary([grade(p, r) for p, r in zip(golds, replies, strict=True)])["accuracy"]["value"] == 1.0
    scores = floors(solver, encoded, golds, "7")
    assert list(scores) == ["majority", "thoughts_removed", "thoughts_zeroed", "thoughts_another_problem"]
    for control in ("removed", "zeroed", "another_problem"):
        other = texts(solver.replies(encoded, control))
        same = sum(a == b for a, b in zip(other, texts(replies), strict=True))
        assert same < 23, control
        assert (scores[f"thoughts_{control}"]["value"], scores[f"thoughts_{control}"]["n"]) == (same / 23, 23)
    sevens = sum(p.answer == "7" for p in golds)
    assert (scores["majority"]["value"], scores["majority"]["n"]) == (sevens / 23, 23)
    assert all(score["low"] <= score["value"] <= score["high"] for score in scores.values())


def test_a_model_without_thoughts_has_only_the_majority_to_beat(backbone: Backbone, encoded: list[Encoded]) -> None:
    assert list(floors(solver_on(backbone, num_slots=0), encoded, PROBLEMS, None)) == ["majority"]


def replace_answer(problem: Problem, answer: str) -> Problem:
    return Problem(problem.id, problem.question, problem.steps, answer, problem.meta)


def test_majority_by_hand() -> None:
    problems = [Problem(str(i), "q", (), answer) for i, answer in enumerate(["7", "7.0", "8", "+7"])]
    assert (majority("7", problems)["value"], majority("7", problems)["n"]) == (0.75, 4)
    assert majority(None, problems)["value"] == 0.0


def test_teacher_forcing_tells_where_the_answer_ends(backbone: Backbone, encoded: list[Encoded], replies: list[Reply]) -> None:
    """The model always writes one digit: given the gold digits one by one it gets the end right where it may not go on."""
    solver, tokens = solver_on(backbone), backbone.tokens

    def gold(problem: Encoded, text: str) -> Sequence:
        (ids,) = backbone.tokenizer(["### " + text], add_special_tokens=False)["input_ids"]
        return join(replace(problem, answer=(*ids, 0)), tokens, slots=[None] * 3)

    own = [gold(p, reply.text[4:]) for p, reply in zip(encoded, replies, strict=True)]
    assert (teacher_forced(solver, own)["value"], teacher_forced(solver, own)["n"]) == (1.0, 23)
    wrong = [gold(p, str((int(reply.text[4:]) + 1) % 10)) for p, reply in zip(encoded[:3], replies, strict=False)]
    assert teacher_forced(solver, own[3:] + wrong)["value"] == 20 / 23
    longer = [gold(p, reply.text[4:] + "0") for p, reply in zip(encoded, replies, strict=True)]
    assert teacher_forced(solver, longer)["value"] == 0.0


# Grading


def reply(text: str, stopped: bool = True) -> Reply:
    return Reply("a", text, 7, 2, stopped)


def test_a_graded_row_says_everything_about_a_reply() -> None:
    assert grade(addition("a", 48, 35), reply("8+5=13 write 3 carry 1\n### 93")) == {
        "id": "a", "question": "48 + 35 =", "gold": "83", "output": "8+5=13 write 3 carry 1\n### 93",
        "answer": "93", "extractor": "marker", "status": "wrong", "reason": None, "correct": False, "digits_right": 0.5,
        "stopped": True, "truncated": False, "tokens": 7, "thoughts": 2, "steps": 2, "digits": 2, "carries": 1,
    }  # fmt: skip
    assert grade(addition("a", 48, 35), reply("### 83"))["correct"] is True
    assert grade(Problem("a", "q", (), "Paris"), reply("### paris."))["correct"] is True
    assert "digits" not in grade(Problem("a", "q", (), "Paris"), reply("### paris."))


def test_an_answer_that_does_not_stop_is_not_right_even_if_it_holds_the_gold_answer(
    backbone: Backbone, encoded: list[Encoded], replies: list[Reply]
) -> None:
    row = grade(addition("a", 48, 35), reply("### 83\n", stopped=False))
    assert (row["correct"], row["answer"], row["digits_right"], row["stopped"]) == (None, None, 0.0, False)
    assert (row["status"], row["reason"], row["truncated"]) == ("unscored", "truncated", True)
    cut = solver_on(backbone, max_new_tokens=2).replies(encoded)
    assert texts(cut) == texts(replies)
    golds = [replace_answer(p, reply.text[4:]) for p, reply in zip(PROBLEMS, replies, strict=True)]
    total = summary([grade(p, r) for p, r in zip(golds, cut, strict=True)])
    assert (total["accuracy"]["value"], total["no_answer"], total["not_stopped"]) == (0.0, 23, 23)


def test_a_reply_without_an_answer_is_a_failure_of_form_and_not_correct() -> None:
    row = grade(addition("a", 48, 35), reply("83"))
    assert (row["correct"], row["answer"], row["stopped"]) == (None, None, True)
    assert (row["status"], row["reason"], row["truncated"]) == ("unscored", "no_answer", False)


def test_another_way_to_grade_is_a_setting() -> None:
    problem = Problem("a", "q", ("x",), "1000")
    near = Grading(("hashes", "last_number"), Equivalence("numeric", absolute=1), accept_truncated=True)
    row = grade(problem, reply("it makes $1,001.00", stopped=False), near)
    assert (row["answer"], row["extractor"], row["status"], row["truncated"]) == ("$1,001.00", "last_number", "right", True)
    assert grade(problem, reply("it makes $1,001.00"))["status"] == "unscored"
    assert grade(problem, reply("#### 1002"), near)["status"] == "wrong"
    assert grade(Problem("a", "q", ("x",), "Paris"), reply("#### 1002"), near)["reason"] == "not_comparable"


def test_the_solver_grades_answers_and_floors_by_its_setting(
    backbone: Backbone, encoded: list[Encoded], replies: list[Reply]
) -> None:
    golds = [replace_answer(p, str(int(reply.text[4:]) + 1)) for p, reply in zip(PROBLEMS, replies, strict=True)]
    exact, near = solver_on(backbone), solver_on(backbone, grading=Grading(equivalence=Equivalence("numeric", absolute=1)))
    assert (exact.rules, summary(exact.graded(golds, encoded))["accuracy"]["value"]) == (Grading(), 0.0)
    assert summary(near.graded(golds, encoded))["accuracy"]["value"] == 1.0
    around = [sum(abs(int(p.answer) - 1) <= most for p in golds) / 23 for most in (0, 1)]
    assert [floors(s, encoded, golds, "1")["majority"]["value"] for s in (exact, near)] == around
    assert around[0] < around[1]


def test_a_summary_by_hand() -> None:
    graded = [
        grade(addition("a", 1, 2), Reply("a", "### 3", 3, 4, True)),
        grade(addition("b", 9, 5), Reply("b", "### 15", 4, 4, True)),
        grade(addition("c", 48, 35), Reply("c", "83", 2, 0, True)),
        grade(addition("d", 21, 62), Reply("d", "### 83", 8, 4, False)),
    ]
    total = summary(graded)
    assert (total["accuracy"]["value"], total["accuracy"]["n"]) == (0.25, 4)
    assert (total["digits_right"]["value"], total["digits_right"]["n"]) == ((1 + 0.5) / 4, 4)
    assert (total["no_answer"], total["not_stopped"]) == (2, 1)
    # One of two that can be scored is right; the others are neither right nor wrong.
    assert (total["accuracy_of_scored"]["value"], total["accuracy_of_scored"]["n"]) == (0.5, 2)
    assert total["unscored"] == {"no_answer": 1, "truncated": 1, "not_comparable": 0, "too_long": 0}
    assert (total["tokens_per_answer"], total["thoughts_per_answer"]) == (17 / 4, 3.0)
    # 1+2: one step; 9+5: one and a carry; 48+35 and 21+62: two.
    assert {key: (v["value"], v["n"]) for key, v in total["by_steps"].items()} == {"1": (1.0, 1), "2": (0.0, 3)}
    assert {key: (v["value"], v["n"]) for key, v in total["by_digits"].items()} == {"1": (0.5, 2), "2": (0.0, 2)}
    assert {key: (v["value"], v["n"]) for key, v in total["by_carries"].items()} == {"0": (0.5, 2), "1": (0.0, 2)}
    assert list(by([{"steps": 10, "correct": True}, {"steps": 9, "correct": None}], "steps")) == ["9", "10"]


def test_problems_without_digits_are_not_broken_down_by_them() -> None:
    total = summary([grade(Problem("a", "q", ("x",), "Paris"), reply("### Rome"))])
    assert (total["digits_right"], "by_digits" in total, list(total["by_steps"])) == (None, False, ["1"])


def test_a_result_in_one_line() -> None:
    score = {"value": 0.5, "n": 4, "low": 0.15, "high": 0.85}
    result = {
        "accuracy": score,
        "split": "test",
        "floors": {"majority": score, "thoughts_another_problem": score | {"value": 0.25}},
    }
    said = "accuracy 50.0% [15.0, 85.0] of 4 (test); floors: majority 50.0%, thoughts another problem 25.0%"
    assert in_words(result) == in_words(result | {"unscored": {"no_answer": 0, "truncated": 0}}) == said
    assert in_words(result | {"unscored": {"no_answer": 1, "truncated": 0, "not_comparable": 2}}) == (
        f"{said}; unscored: 1 no answer, 2 not comparable"
    )


@pytest.mark.parametrize("count", range(8))
@pytest.mark.parametrize("most", [1, 2, 3, 5, 100])
def test_evenly_cuts_into_as_few_equal_parts_as_possible(count: int, most: int) -> None:
    parts = evenly(list(range(count)), most)
    assert [i for part in parts for i in part] == list(range(count))
    assert len(parts) == -(-count // most)
    assert not parts or max(map(len, parts)) - min(map(len, parts)) <= 1


def test_gold_texts_stand_at_the_slots_that_mean_them(backbone: Backbone) -> None:
    problem = addition("a", 48, 35)
    (one,) = encode([problem], backbone.tokenizer)
    solver = solver_on(backbone, num_slots=3)
    assert solver.gold_texts(one) == ["8+5=13 write 3 carry 1", "4+3+1=8 write 8", ""]
    two = solver_on(backbone, Curriculum(stages=[3], latents_per_step=2, max_stage=3), num_slots=6)
    assert two.gold_texts(one) == [None, "8+5=13 write 3 carry 1", None, "4+3+1=8 write 8", "", ""]


# What does not fit


def test_a_problem_longer_than_the_models_positions_is_unscored_and_the_others_are_answered_as_ever(
    backbone: Backbone, encoded: list[Encoded], replies: list[Reply]
) -> None:
    most = solver_on(backbone).room - 3 - 3  # slots, markers
    at_the_edge, beyond = (replace(encoded[0], id=f"long-{n}", question=encoded[0].question * 99) for n in (0, 1))
    at_the_edge = replace(at_the_edge, question=at_the_edge.question[:most])
    beyond = replace(beyond, question=beyond.question[: most + 1])
    found = solver_on(backbone).replies([beyond, *encoded, at_the_edge])
    assert found[1:-1] == replies
    assert found[0] == Reply("long-1", "", 0, 0, stopped=True, is_too_long=True)
    assert not found[-1].is_too_long
    row = grade(PROBLEMS[0], found[0])
    assert (row["status"], row["reason"], row["correct"]) == ("unscored", "too_long", None)
    assert summary([row])["unscored"]["too_long"] == 1


def test_positions_that_are_kept_count_as_if_tokens_stood_there(backbone: Backbone, encoded: list[Encoded]) -> None:
    solver = solver_on(backbone, ICoT(epochs=[1.0], keep_positions=True), stage=5, num_slots=0)
    most = solver.room - 5 - 3  # positions left free; markers, which are counted for every prompt
    at_the_edge, beyond = (replace(encoded[0], id=f"long-{n}", question=(encoded[0].question * 99)[: most + n]) for n in (0, 1))
    assert [reply.is_too_long for reply in solver.replies([at_the_edge, beyond])] == [False, True]
    assert solver_on(backbone, ICoT(epochs=[1.0]), stage=5, num_slots=0).fits(beyond)


def test_who_has_less_room_for_positions_that_are_kept_cuts_nobody_else_off(encoded: list[Encoded]) -> None:
    endless = ruled_backbone(rules=dict.fromkeys("0123456789", None))
    solver = solver_on(endless, ICoT(epochs=[1.0], keep_positions=True), stage=5, num_slots=0)
    long = replace(encoded[0], id="long", question=(encoded[0].question * 99)[: solver.room - 5 - 5])  # an answer has 6
    assert [reply.num_tokens for reply in solver.replies([*encoded[:3], long])] == [6, 6, 6, 5]


def test_a_chain_too_long_to_be_read_was_not_predicted(backbone: Backbone, encoded: list[Encoded]) -> None:
    solver = solver_on(backbone)
    long = replace(encoded[0], question=encoded[0].question * 99)
    short, beyond = (Curriculum(stages=[3]).sequence(p, backbone.tokens, 3) for p in (encoded[0], long))
    assert teacher_forced(solver, [short, beyond])["n"] == 2
    assert teacher_forced(solver, [beyond])["value"] == 0
