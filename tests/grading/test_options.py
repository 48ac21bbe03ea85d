"""The likeliest of the options: against probabilities taken one by one, after thoughts, after a written chain."""

from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from latent_lab.backbone import Backbone, marker_ids
from latent_lab.grading.evaluate import Solver
from latent_lab.grading.options import answered, likeliest, of_options, options_of
from latent_lab.problems import Problem
from latent_lab.problems.arithmetic import Arithmetic
from latent_lab.problems.choices import StrategyQA
from latent_lab.problems.prontoqa import ProntoQA
from latent_lab.problems.prosqa import ProsQA
from latent_lab.reasoner import LatentReasoner
from latent_lab.sequences import Role
from latent_lab.stages.base import Stage
from latent_lab.stages.graphs import GraphCurriculum
from latent_lab.symbols import symbol_tokenizer

TOKENIZER = symbol_tokenizer()
EOS, LATENT, A = 38, 33, 37
DATASET = ProsQA(form="symbolic", size=16)
PROBLEMS = DATASET.load("test")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=40, n_positions=256, n_embd=32, n_layer=2, n_head=2, initializer_range=0.5, bos_token_id=EOS, eos_token_id=EOS
    )
    return Backbone(GPT2LMHeadModel(config).eval(), TOKENIZER, marker_ids(TOKENIZER))


def solver_on(backbone: Backbone, stage: Stage, number: int, **settings: Any) -> Solver:
    reasoner = LatentReasoner(backbone.model, backbone.tokens)
    solver = Solver(reasoner, backbone, stage, number, stage.num_slots(number), max_new_tokens=4, **settings)
    solver.options = options_of(DATASET, stage, PROBLEMS, TOKENIZER)
    return solver


@torch.no_grad()
def log_probability(backbone: Backbone, before: list[int], after: list[int]) -> float:
    """What the plain model says of some tokens after others, without slots."""
    logs = backbone.model(torch.tensor([before + after])).logits[0].double().log_softmax(-1)
    return float(sum(logs[len(before) - 1 + i, token] for i, token in enumerate(after)))


def test_every_dataset_with_two_answers_names_them() -> None:
    words, names = ProsQA(size=3).load("test"), ProsQA(size=3, form="terse").load("test")
    for dataset, problems in ((ProsQA(), words), (ProsQA(form="terse"), names), (DATASET, PROBLEMS)):
        for problem in problems:
            answers = dataset.choices_of(problem)
            assert len(set(answers)) == 2
            assert problem.answer in answers
    pronto = ProntoQA(size=20)
    assert {p.answer for p in pronto.load("test")} == set(pronto.choices_of(PROBLEMS[0])) == {"True", "False"}
    assert set(StrategyQA.choices_of(StrategyQA(name="x"), PROBLEMS[0])) == {"True", "False"}
    assert options_of(Arithmetic(), GraphCurriculum(), [Problem("x", "1 + 1", (), "2")], TOKENIZER) == {}


@pytest.mark.parametrize("batch_size", [1, 3, 256])
def test_the_likeliest_option_is_that_of_the_plain_model_after_what_was_written(backbone: Backbone, batch_size: int) -> None:
    stage = GraphCurriculum(kind="cot", stages=[0])
    solver = solver_on(backbone, stage, 0, batch_size=batch_size)
    encoded = stage.encode(PROBLEMS, TOKENIZER)
    rows = solver.graded(PROBLEMS, encoded)
    for problem, each, row in zip(PROBLEMS, encoded, rows, strict=True):
        written = TOKENIZER(row["output"])["input_ids"]
        chain = written[: written.index(A)] if A in written else written
        scores = {
            node: log_probability(backbone, [*each.question, *chain], [A, int(node), EOS]) for node in DATASET.choices_of(problem)
        }
        # A slot that the model itself wrote was no thought when it was written: such a chain cannot be run again.
        assert row["option"] == (None if LATENT in chain else max(scores, key=lambda node: scores[node]))
    assert {row["option"] == row["gold"] for row in rows} == {True, False}


@torch.no_grad()
def test_after_thoughts_each_option_stands_in_the_answers_place(backbone: Backbone) -> None:
    stage = GraphCurriculum(stages=[4])
    encoded = stage.encode(PROBLEMS, TOKENIZER)
    rows = solver_on(backbone, stage, 4).graded(PROBLEMS, encoded)
    reasoner = LatentReasoner(backbone.model, backbone.tokens)
    for problem, each, row in zip(PROBLEMS, encoded, rows, strict=True):
        losses = {}
        for node in DATASET.choices_of(problem):
            ids = [*each.question, *[LATENT] * 4, A, int(node), EOS]
            labels = torch.tensor([[-100] * (len(ids) - 2) + ids[-2:]])
            losses[node] = float(reasoner(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long), labels).loss_sum)
        assert row["option"] == min(losses, key=lambda node: losses[node])


def test_an_option_takes_the_place_of_the_answer_written(backbone: Backbone) -> None:
    stage = GraphCurriculum(kind="cot", stages=[0])
    (each,) = stage.encode(PROBLEMS[:1], TOKENIZER)
    prompt = stage.prompt(each, backbone.tokens, 0)
    for written, chain in (([5, 9, A, 7, A], (5, 9)), ([5, 9], (5, 9)), ([A, 3], ()), ([], ())):
        whole = answered(prompt, written, (A, 6, EOS))
        assert whole.ids == (*each.question, *chain, A, 6, EOS)
        assert whole.labels == (*[-100] * (len(each.question) + len(chain)), A, 6, EOS)
        assert whole.roles[len(each.question) :] == (*[Role.STEP] * len(chain), *[Role.ANSWER] * 3)
    thinking = GraphCurriculum(stages=[2])
    asked = thinking.prompt(each, backbone.tokens, 2)
    assert answered(asked, [4], (A, 6, EOS)).ids == (*each.question, LATENT, LATENT, A, 6, EOS)


def test_where_there_is_no_room_no_option_is_chosen_and_no_control_is_asked(backbone: Backbone) -> None:
    stage = GraphCurriculum(kind="cot", stages=[0])
    encoded = stage.encode(PROBLEMS, TOKENIZER)
    longest = max(encoded, key=lambda p: len(p.question))
    solver = solver_on(backbone, stage, 0)
    prompt, options = stage.prompt(longest, backbone.tokens, 0), [solver.options[longest.id]]
    filled = [5] * (solver.room - len(longest.question) - 3)
    assert likeliest(solver, [prompt], [filled], options) != [None]
    assert likeliest(solver, [prompt], [[*filled, 5]], options) == [None]
    assert likeliest(solver, [prompt], [[]], [{}]) == [None]
    thinking = GraphCurriculum(stages=[2])
    assert "option" not in solver_on(backbone, thinking, 2).graded(PROBLEMS, thinking.encode(PROBLEMS, TOKENIZER), "zeroed")[0]


def test_the_accuracy_has_its_interval_and_the_floor_of_guessing() -> None:
    rows = [{"id": str(i), "gold": "4", "option": option} for i, option in enumerate(["4", "4", "5"])] + [
        {"id": "3", "gold": "4"}
    ]
    options = {row["id"]: {"4": (4,), "5": (5,)} for row in rows}
    found = of_options(options, rows)["accuracy_of_options"]
    assert (found["value"], found["n"], found["floor"]) == (0.5, 4, 0.5)
    assert [round(found[end], 4) for end in ("low", "high")] == [0.15, 0.85]
    assert [row["option_correct"] for row in rows] == [True, True, False, False]
    assert rows[3]["option"] is None
    assert of_options({}, rows) == {}
