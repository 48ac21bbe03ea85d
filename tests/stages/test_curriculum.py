"""The layouts of Coconut's stages, held against a table written by hand from the published code."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from latent_lab.backbone import Scratch
from latent_lab.problems.gsm8k import GSM8K
from latent_lab.schedule import Phase
from latent_lab.sequences import IGNORE, Encoded, LatentTokens, Role, encode
from latent_lab.stages.curriculum import Curriculum

TOKENS = LatentTokens(start=90, latent=91, end=92)
PROBLEM = Encoded("p", question=(1, 2, 3), steps=((10, 11), (20,), (30, 31, 32), (40,)), answer=(50, 51, 0))

PIECES: dict[str, tuple[tuple[int, ...], Role]] = {
    "Q": ((1, 2, 3), Role.QUESTION),
    "B": ((90,), Role.START),
    "L": ((91,), Role.LATENT),
    "E": ((92,), Role.END),
    "S1": ((10, 11), Role.STEP),
    "S2": ((20,), Role.STEP),
    "S3": ((30, 31, 32), Role.STEP),
    "S4": ((40,), Role.STEP),
    "A": ((50, 51, 0), Role.ANSWER),
}
"""Question, markers, slot, steps and answer of the tables below."""

COCONUT = {
    0: "Q B E S1 S2 S3 S4 A",
    1: "Q B L E S2 S3 S4 A",
    2: "Q B L L E S3 S4 A",
    3: "Q B L L L E S4 A",
    4: "Q B L L L L E A",
}
TABLE: list[tuple[dict[str, Any], dict[int, str]]] = [
    ({}, COCONUT | {5: "Q B L L L L L E A", 6: "Q B L L L L L L E A", 7: "Q B L L L L L L E A", 9: "Q B L L L L L L E A"}),
    # The published code trains stage 6 with six slots here but answers with four; ours does both with four.
    ({"pad": "chain"}, COCONUT | {5: "Q B L L L L E A", 6: "Q B L L L L E A", 7: "Q B L L L L E A"}),
    # GSM8K's setting: past the largest stage every step is gone, also those of chains longer than it.
    (
        {"latents_per_step": 2, "max_stage": 3},
        {
            0: "Q B E S1 S2 S3 S4 A",
            1: "Q B L L E S2 S3 S4 A",
            2: "Q B L L L L E S3 S4 A",
            3: "Q B L L L L L L E S4 A",
            4: "Q B L L L L L L E A",
            5: "Q B L L L L L L E A",
        },
    ),
    ({"max_stage": 2}, {2: "Q B L L E S3 S4 A", 3: "Q B L L E A", 4: "Q B L L E A"}),
    ({"max_stage": 1, "latents_per_step": 2, "pad": "chain"}, {1: "Q B L L E S2 S3 S4 A", 2: "Q B L L E A"}),
    ({"latents_per_step": 2, "max_stage": 3, "pad": "chain"}, {3: "Q B L L L L L L E S4 A", 4: "Q B L L L L L L E A"}),
    ({"kind": "cot"}, {0: "Q S1 S2 S3 S4 A"}),
    ({"kind": "no_cot"}, {0: "Q A"}),
    # Without thoughts the curriculum only takes steps away.
    (
        {"kind": "no_thoughts"},
        {0: "Q S1 S2 S3 S4 A", 1: "Q S2 S3 S4 A", 2: "Q S3 S4 A", 3: "Q S4 A", 4: "Q A", 6: "Q A", 7: "Q A"},
    ),
    ({"kind": "no_thoughts", "max_stage": 2}, {2: "Q S3 S4 A", 3: "Q A"}),
    ({"kind": "no_thoughts", "latents_from": "end"}, {0: "Q S1 S2 S3 S4 A", 1: "Q S1 S2 S3 A", 3: "Q S1 A", 4: "Q A"}),
    # Pause tokens stand where thoughts would: the same ids, fed with their own embedding.
    ({"kind": "pause"}, COCONUT | {6: "Q B L L L L L L E A", 7: "Q B L L L L L L E A"}),
    ({"kind": "pause", "multipass": True}, COCONUT | {6: "Q B L L L L L L E A"}),
    # What the published code trains without pad_latent_to_max.
    ({"pad": "published_mismatch"}, COCONUT | {5: "Q B L L L L L E A", 6: "Q B L L L L L L E A", 7: "Q B L L L L E A"}),
    # The model is asked at each slot whether to go on.
    ({"train_stop": True}, {0: "Q B E! S1 S2 S3 S4 A", 1: "Q B L! E! S2 S3 S4 A", 4: "Q B L! L! L! L! E! A"}),
    ({"train_stop": True, "pad": "chain"}, {6: "Q B L! L! L! L! E! A"}),
    (
        {"latents_from": "end"},
        {
            0: "Q S1 S2 S3 S4 B! E A",
            1: "Q S1 S2 S3 B! L E A",
            3: "Q S1 B! L L L E A",
            4: "Q B! L L L L E A",
            6: "Q B! L L L L L L E A",
            7: "Q B! L L L L L L E A",
        },
    ),
]
"""Options, and for each stage the layout; ``B!`` is a marker (``L!`` a slot) that the model must predict."""

ROWS = [pytest.param(options, stage, row, id=f"{options} {stage}") for options, rows in TABLE for stage, row in rows.items()]


@pytest.mark.parametrize(("options", "stage", "row"), ROWS)
def test_a_layout_is_the_tables_token_by_token(options: dict[str, Any], stage: int, row: str) -> None:
    expected = [
        (i, i if role in (Role.STEP, Role.ANSWER) or name.endswith("!") else IGNORE, role)
        for name in row.split()
        for ids, role in [PIECES[name.rstrip("!")]]
        for i in ids
    ]
    laid_out = Curriculum(**options).sequence(PROBLEM, TOKENS, stage)
    assert list(zip(laid_out.ids, laid_out.labels, laid_out.roles, strict=True)) == expected
    assert laid_out.num_slots == row.replace("!", "").split().count("L")


@pytest.mark.parametrize(("options", "stage", "row"), ROWS)
def test_shape_counts_slots_and_the_tokens_before_and_after_them(options: dict[str, Any], stage: int, row: str) -> None:
    curriculum = Curriculum(**options)
    laid_out = curriculum.sequence(PROBLEM, TOKENS, stage)
    slots, before, after = curriculum.shape(PROBLEM, stage)
    if curriculum.has_slots:
        start, end = laid_out.roles.index(Role.START), laid_out.roles.index(Role.END)
        assert (slots, before, after) == (end - start - 1, start, len(laid_out.ids) - end - 1)
    else:
        written_first = sum(len(PROBLEM.steps[i]) for i in curriculum.parts(PROBLEM, stage)[0])
        assert (slots, before, after) == (0, 3 + written_first, len(laid_out.ids) - 3 - written_first)


@pytest.mark.parametrize(
    ("options", "stage", "step_of_slot"),
    [
        ({}, 3, (0, 1, 2)),
        ({}, 6, (0, 1, 2, 3, None, None)),
        ({"pad": "chain"}, 6, (0, 1, 2, 3)),
        ({"latents_per_step": 2}, 2, (0, 0, 1, 1)),
        ({"latents_per_step": 2}, 5, (0, 0, 1, 1, 2, 2, 3, 3, None, None)),
        ({"latents_per_step": 2, "max_stage": 3}, 4, (0, 0, 1, 1, 2, 2)),
        ({"latents_from": "end"}, 1, (3,)),
        ({"latents_from": "end"}, 3, (1, 2, 3)),
        ({"latents_from": "end"}, 5, (0, 1, 2, 3, None)),
    ],
)
def test_each_slot_stands_for_a_step(options: dict[str, Any], stage: int, step_of_slot: tuple[int | None, ...]) -> None:
    assert Curriculum(**options).sequence(PROBLEM, TOKENS, stage).step_of_slot == step_of_slot


def test_nothing_but_the_layout_differs_between_thoughts_and_pauses() -> None:
    for stage in range(8):
        assert Curriculum(kind="pause").sequence(PROBLEM, TOKENS, stage) == Curriculum().sequence(PROBLEM, TOKENS, stage)
    assert (Curriculum(kind="pause").loop().feeds, Curriculum().loop().feeds) == ("tokens", "thoughts")


@pytest.mark.parametrize(("stage", "is_closed"), [(0, False), (3, False), (4, True), (5, True)])
def test_the_bottleneck_closes_the_stages_that_add_no_slot_any_more(stage: int, is_closed: bool) -> None:
    curriculum = Curriculum(answer_sees="thoughts", max_stage=4)
    assert curriculum.sequence(PROBLEM, TOKENS, stage).is_closed == is_closed
    assert curriculum.prompt(PROBLEM, TOKENS, stage).is_closed == is_closed
    assert not Curriculum(max_stage=4).sequence(PROBLEM, TOKENS, stage).is_closed


def test_step_supervision_reads_each_step_once_and_the_end_after_the_chain() -> None:
    laid_out = Curriculum(latents_per_step=2).sequence(PROBLEM, TOKENS, 5)
    assert laid_out.slot_texts == ((), (10, 11), (), (20,), (), (30, 31, 32), (), (40,), (0,), (0,))


def test_a_chain_shorter_than_the_stage_is_filled_up_with_slots() -> None:
    short = replace(PROBLEM, steps=PROBLEM.steps[:1])
    assert Curriculum().sequence(short, TOKENS, 3).ids == (1, 2, 3, 90, 91, 91, 91, 92, 50, 51, 0)
    assert Curriculum(pad="chain").sequence(short, TOKENS, 3).ids == (1, 2, 3, 90, 91, 92, 50, 51, 0)
    assert Curriculum().sequence(replace(PROBLEM, steps=()), TOKENS, 1).ids == (1, 2, 3, 90, 91, 92, 50, 51, 0)


def test_a_published_gsm8k_row_at_the_published_setting(data_folder: Path) -> None:
    problem = GSM8K(path=str(data_folder / "gsm8k")).load("test")[0]
    backbone = Scratch(layers=1, width=32, heads=1, positions=64).load([problem])
    encoded, curriculum = encode([problem], backbone.tokenizer)[0], Curriculum(latents_per_step=2, max_stage=3)
    text = [backbone.tokenizer.decode(curriculum.sequence(encoded, backbone.tokens, stage).ids) for stage in (0, 1, 3)]
    assert problem.question.startswith("Janet\u2019s ducks lay 16 eggs per day.")
    assert [t.removeprefix(problem.question) for t in text] == [
        "\n<|start-latent|><|end-latent|><<16-3-4=9>>\n<<9*2=18>>\n### 18<|endoftext|>",
        "\n<|start-latent|><|latent|><|latent|><|end-latent|><<9*2=18>>\n### 18<|endoftext|>",
        "\n<|start-latent|>" + "<|latent|>" * 6 + "<|end-latent|>### 18<|endoftext|>",
    ]


# Evaluation


@pytest.mark.parametrize(
    ("options", "slots"),
    [
        ({}, [0, 1, 3, 6, 6]),
        ({"pad": "chain"}, [0, 1, 3, 6, 6]),
        ({"latents_per_step": 2, "max_stage": 3}, [0, 2, 6, 6, 6]),
        ({"latents_from": "end"}, [0, 1, 3, 6, 6]),
        ({"max_stage": 0}, [0, 0, 0, 0, 0]),
    ],
)
def test_a_prompts_slots_depend_on_the_stage_alone(options: dict[str, Any], slots: list[int]) -> None:
    assert [Curriculum(**options).num_slots(stage) for stage in (0, 1, 3, 6, 7)] == slots


@pytest.mark.parametrize("kind", ["cot", "no_cot"])
def test_without_latent_stages_a_prompt_is_the_question(kind: str) -> None:
    curriculum = Curriculum(kind=kind)
    assert curriculum.num_slots(3) == 0
    assert curriculum.prompt(PROBLEM, TOKENS, 0).ids == (1, 2, 3)


@pytest.mark.parametrize("latents_from", ["start", "end"])
def test_a_prompt_holds_nothing_of_steps_and_answer(latents_from: str) -> None:
    curriculum = Curriculum(latents_from=latents_from)
    prompt = curriculum.prompt(PROBLEM, TOKENS, 3)
    assert prompt.ids == (1, 2, 3, 90, 91, 91, 91, 92)
    assert set(prompt.labels) == {IGNORE}
    assert prompt.step_of_slot == (None, None, None)
    other = curriculum.prompt(replace(PROBLEM, steps=((77,),), answer=(78, 0)), TOKENS, 3)
    assert (other.ids, other.labels, other.roles) == (prompt.ids, prompt.labels, prompt.roles)


@pytest.mark.parametrize("stage", range(8))
@pytest.mark.parametrize("chain", range(5))
def test_a_training_sequence_begins_with_the_prompt_of_its_stage(stage: int, chain: int) -> None:
    problem, curriculum = replace(PROBLEM, steps=PROBLEM.steps[:chain]), Curriculum()
    prompt = curriculum.prompt(problem, TOKENS, stage)
    assert curriculum.sequence(problem, TOKENS, stage).ids[: len(prompt.ids)] == prompt.ids


def test_the_model_writes_first_only_where_the_end_becomes_latent() -> None:
    assert Curriculum(latents_from="end").writes_first()
    assert not Curriculum().writes_first()
    assert not Curriculum(kind="no_thoughts", latents_from="end").writes_first()


# Mixing


def named(number: int) -> Encoded:
    return replace(PROBLEM, id=f"p{number}")


def test_without_mixing_every_problem_is_at_the_stage() -> None:
    assert {Curriculum(stages=[3]).stage_of(named(i), 3, "0/0") for i in range(100)} == {3}


def test_the_stage_drawn_depends_on_seed_epoch_and_id_alone() -> None:
    first, again = (Curriculum(stages=[6], mix=0.5) for _ in range(2))
    draws = [first.stage_of(named(i), 6, "1/2") for i in range(200)]
    assert [again.stage_of(named(i), 6, "1/2") for i in reversed(range(200))][::-1] == draws
    assert [first.stage_of(replace(named(i), question=(9,), steps=(), answer=(0,)), 6, "1/2") for i in range(200)] == draws
    assert [first.stage_of(named(i), 6, "2/2") for i in range(200)] != draws
    assert [first.stage_of(named(i), 6, "1/3") for i in range(200)] != draws


def test_the_stage_is_drawn_with_the_probability_asked_for_and_evenly() -> None:
    n = 8000
    counts = Counter(Curriculum(stages=[3], mix=0.4).stage_of(named(i), 3, "0/0") for i in range(n))
    assert set(counts) == {0, 1, 2, 3}
    for stage, share in ((0, 0.1), (1, 0.1), (2, 0.1), (3, 0.7)):
        assert counts[stage] / n == pytest.approx(share, abs=4 * (share * (1 - share) / n) ** 0.5)
    always = Counter(Curriculum(stages=[3], mix=1.0).stage_of(named(i), 3, "0/0") for i in range(n))
    assert all(count / n == pytest.approx(0.25, abs=0.02) for count in always.values())


def test_the_published_mixing_draws_from_the_whole_chain_whatever_stage_is_reached() -> None:
    mixed = Curriculum(stages=[1], mix=1.0, mix_from="chain")
    assert Counter(mixed.stage_of(named(i), 1, "0/0") for i in range(500)).keys() == {0, 1, 2, 3, 4}
    assert Counter(Curriculum(stages=[1], mix=1.0).stage_of(named(i), 1, "0/0") for i in range(500)).keys() == {0, 1}


# Phases


def test_each_stage_is_a_phase_and_the_last_number_of_epochs_holds_for_the_rest() -> None:
    phases = Curriculum(stages=[0, 1, 3], epochs=[2.0, 0.5]).phases()
    assert phases == [Phase(0, 2.0), Phase(1, 0.5), Phase(3, 0.5)]


@pytest.mark.parametrize(
    ("rule", "fresh"),
    [("never", (False, False)), ("stage", (True, False)), ("every_epoch_as_published", (True, True))],
)
def test_the_optimiser_forgets_when_it_is_told_to(rule: str, fresh: tuple[bool, bool]) -> None:
    (phase,) = Curriculum(reset_optimizer=rule).phases()
    assert (phase.fresh_optimizer, phase.fresh_each_epoch) == fresh


# What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "icoconut"}, "kind=icoconut: allowed are coconut, pause, no_thoughts, cot, no_cot"),
        ({"latents_from": "middle"}, "latents_from=middle: allowed are start, end"),
        ({"decoder": "big"}, "decoder=big: allowed are autoregressive, linear"),
        ({"stages": []}, "stages=[]: give one or more stages, 0 and up, in rising order"),
        ({"stages": [-1, 0]}, "stages=[-1, 0]: give one or more stages, 0 and up, in rising order"),
        ({"stages": [1, 0]}, "stages=[1, 0]: give one or more stages, 0 and up, in rising order"),
        ({"stages": [1, 1]}, "stages=[1, 1]: give one or more stages, 0 and up, in rising order"),
        ({"epochs": []}, "epochs=[]: give one or more numbers, 0 and up"),
        ({"epochs": [-0.5]}, "epochs=[-0.5]: give one or more numbers, 0 and up"),
        ({"epochs": [1.0, 2.0]}, "epochs=[1.0, 2.0]: at most one for each of stages=[0]"),
        ({"latents_per_step": 0}, "latents_per_step=0: allowed are 1 and more"),
        ({"max_stage": -1}, "max_stage=-1: allowed are 0 and more"),
        ({"mix": 1.5}, "mix=1.5: allowed are probabilities from 0 to 1"),
        ({"mix": -0.1}, "mix=-0.1: allowed are probabilities from 0 to 1"),
        ({"supervision": -1.0}, "supervision=-1.0: allowed are weights of 0 and more"),
        ({"pad": "no"}, "pad=no: allowed are max, chain, published_mismatch"),
        ({"mix_from": "all"}, "mix_from=all: allowed are reached, chain"),
        ({"feedback": "middle"}, "feedback=middle: allowed are after_norm, before_norm"),
        ({"projection": "deep"}, "projection=deep: allowed are none, linear, mlp"),
        ({"rounds": 0}, "rounds=0: allowed are 1 and more, or null for one slot after another"),
        ({"answer_sees": "question"}, "answer_sees=question: allowed are all, thoughts, vectors"),
        ({"reset_optimizer": "epoch"}, "reset_optimizer=epoch: allowed are never, stage, every_epoch_as_published"),
        ({"kind": "cot", "stages": [1]}, "stages=[1]: stage.kind=cot has no latent stages; allowed: [0]"),
        ({"kind": "no_cot", "mix": 0.1}, "mix=0.1: stage.kind=no_cot has no latent slots; allowed: leave it out"),
        ({"kind": "cot", "supervision": 1.0}, "supervision=1.0: stage.kind=cot has no latent slots; allowed: leave it out"),
        (
            {"kind": "no_thoughts", "latents_per_step": 2},
            "latents_per_step=2: stage.kind=no_thoughts has no latent slots; allowed: leave it out",
        ),
        ({"kind": "pause", "detach": True}, "detach=True: stage.kind=pause feeds no thought back; allowed: leave it out"),
        ({"kind": "pause", "rounds": 2}, "rounds=2: stage.kind=pause feeds no thought back; allowed: leave it out"),
        (
            {"kind": "pause", "answer_sees": "vectors"},
            "answer_sees=vectors: stage.kind=pause feeds no thought back; allowed are all, thoughts",
        ),
        ({"multipass": True}, "multipass=True: stage.kind=coconut has one pass a slot anyway; allowed: leave it out"),
    ],
)
def test_an_impossible_curriculum_says_what_is_allowed(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Curriculum(**options)
