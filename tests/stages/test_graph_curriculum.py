"""Graph search in symbols: the published example token by token, and what is drawn for every epoch."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from latent_lab.backbone import Scratch, marker_ids
from latent_lab.grading.extraction import extract
from latent_lab.problems import DataError, Problem
from latent_lab.sequences import IGNORE, Encoded, Role
from latent_lab.stages.graphs import GraphCurriculum
from latent_lab.symbols import SYMBOLS, symbol_tokenizer

TOKENIZER = symbol_tokenizer()
TOKENS = marker_ids(TOKENIZER)
EOS, BAR, Q, R, A, LATENT = 38, 34, 35, 36, 37, 33

PROBLEM = Problem(
    id="test-0",
    question="<eos> 1 5 | 1 9 | 9 14 | 5 18 | 14 21 | 0 25 [Q] 25 21 [R] 1",
    steps=("9", "14", "21"),
    answer="21",
    meta={
        "neighbor_k": {"0": [1], "1": [9], "2": [14], "3": [21]},
        "frontier": {"0": [1], "1": [5, 9], "2": [18, 14], "3": [21]},
    },
)
QUESTION = (EOS, 1, 5, BAR, 1, 9, BAR, 9, 14, BAR, 5, 18, BAR, 14, 21, BAR, 0, 25, Q, 25, 21, R, 1)


def encoded(stage: GraphCurriculum, problem: Problem = PROBLEM) -> Encoded:
    return stage.encode([problem], TOKENIZER)[0]


def test_the_vocabulary_is_the_published_one() -> None:
    assert [SYMBOLS.index(s) for s in ("0", "30", "<|start-latent|>", "<|end-latent|>", "<|latent|>")] == [0, 30, 31, 32, 33]
    assert [SYMBOLS.index(s) for s in ("|", "[Q]", "[R]", "[A]", "<eos>", "<|no-answer|>")] == [34, 35, 36, 37, 38, 39]
    assert (len(SYMBOLS), len(TOKENIZER), TOKENIZER.eos_token_id) == (40, 40, EOS)
    assert (TOKENS.latent, TOKENS.end) == (LATENT, A)


def test_a_saved_vocabulary_still_ends_thinking_with_its_question_mark(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    TOKENIZER.save_pretrained(tmp_path)
    assert marker_ids(AutoTokenizer.from_pretrained(tmp_path)) == TOKENS


def test_a_problem_is_one_token_a_word() -> None:
    made = encoded(GraphCurriculum())
    assert made.question == QUESTION
    assert (made.steps, made.answer, made.prefix) == (((9,), (14,), (21,)), (A, 21, EOS), 1)
    assert made.targets == ((9,), (14,), (21,))
    assert encoded(GraphCurriculum(labels="frontier")).targets == ((5, 9), (18, 14), (21,))


TABLE: list[tuple[dict[str, Any], int, str]] = [
    ({}, 0, "Q 9!"),
    ({}, 1, "Q L 14!"),
    ({}, 2, "Q L L 21!"),
    ({}, 3, "Q L L L [A] 21! <eos>!"),
    ({}, 4, "Q L L L L [A] 21! <eos>!"),
    ({}, 7, "Q L L L L [A] 21! <eos>!"),
    ({"pad": "chain"}, 2, "Q L L 21!"),
    ({"pad": "chain"}, 4, "Q L L L [A] 21! <eos>!"),
    ({"latents_per_step": 2}, 1, "Q L L 14!"),
    ({"kind": "pause"}, 3, "Q L L L [A] 21! <eos>!"),
    ({"kind": "no_thoughts"}, 1, "Q 14!"),
    ({"kind": "no_thoughts"}, 3, "Q [A] 21! <eos>!"),
    ({"kind": "cot", "stages": [0]}, 0, "Q 9! 14! 21! [A]! 21! <eos>!"),
    ({"kind": "no_cot", "stages": [0]}, 0, "Q [A]! 21! <eos>!"),
    ({"train_stop": True}, 3, "Q L! L! L! [A]! 21! <eos>!"),
]


@pytest.mark.parametrize(("options", "stage", "row"), TABLE, ids=[f"{o} {s}" for o, s, _ in TABLE])
def test_a_layout_is_the_tables_token_by_token(options: dict[str, Any], stage: int, row: str) -> None:
    kind = options.get("kind", "coconut")
    recipe = GraphCurriculum(**options, **({} if kind in ("cot", "no_cot") else {"max_stage": 4}))
    laid_out = recipe.sequence(encoded(recipe), TOKENS, stage)
    ids, labels = list(QUESTION), [IGNORE] * len(QUESTION)
    for word in row.split()[1:]:
        ids.append(LATENT if word[0] == "L" else SYMBOLS.index(word.rstrip("!")))
        labels.append(ids[-1] if word.endswith("!") else IGNORE)
    assert (list(laid_out.ids), list(laid_out.labels)) == (ids, labels)
    assert laid_out.num_slots == row.replace("!", "").split().count("L")
    assert recipe.shape(encoded(recipe), stage) == (
        laid_out.num_slots,
        len(QUESTION),
        len(ids) - len(QUESTION) - laid_out.num_slots,
    )


def test_roles_tell_the_label_from_the_answer() -> None:
    recipe = GraphCurriculum(max_stage=4)
    assert recipe.sequence(encoded(recipe), TOKENS, 1).roles[len(QUESTION) :] == (Role.LATENT, Role.STEP)
    tail = recipe.sequence(encoded(recipe), TOKENS, 3).roles[len(QUESTION) + 3 :]
    assert tail == (Role.END, Role.ANSWER, Role.ANSWER)


def test_a_prompt_asks_for_the_target_after_as_many_slots_as_the_stage_has() -> None:
    recipe = GraphCurriculum(max_stage=4)
    assert recipe.prompt(encoded(recipe), TOKENS, 4).ids == (*QUESTION, *[LATENT] * 4, A)
    assert recipe.prompt(encoded(recipe), TOKENS, 4, 0).ids == (*QUESTION, A)
    assert GraphCurriculum(kind="cot").prompt(encoded(recipe), TOKENS, 0).ids == QUESTION


# What is drawn


def edges_of(ids: tuple[int, ...]) -> list[tuple[int, ...]]:
    body = ids[1 : ids.index(Q)]
    return [body[i : i + 2] for i in range(0, len(body), 3)]


def test_edges_and_candidates_are_shuffled_anew_for_every_epoch_and_nothing_else_changes() -> None:
    recipe = GraphCurriculum(max_stage=4)
    drawn = [recipe.sequence(encoded(recipe), TOKENS, 3, f"0/{epoch}").ids for epoch in range(40)]
    assert len({ids[: len(QUESTION)] for ids in drawn}) > 30
    for ids in drawn:
        assert len(ids) == len(QUESTION) + 6
        assert sorted(edges_of(ids)) == sorted(edges_of(QUESTION))
        assert ids[3 : len(QUESTION) - 5 : 3] == QUESTION[3 : len(QUESTION) - 5 : 3]
        assert {ids[len(QUESTION) - 4], ids[len(QUESTION) - 3]} == {25, 21}
        assert ids[len(QUESTION) - 2 :] == (R, 1, LATENT, LATENT, LATENT, A, 21, EOS)
    orders = Counter(ids[len(QUESTION) - 4] for ids in drawn)
    assert min(orders[25], orders[21]) > 8


def test_a_draw_is_the_same_for_the_same_seed_epoch_and_id() -> None:
    recipe = GraphCurriculum(max_stage=4, mix=0.5)
    assert recipe.sequence(encoded(recipe), TOKENS, 3, "1/2") == recipe.sequence(encoded(recipe), TOKENS, 3, "1/2")
    assert recipe.sequence(encoded(recipe), TOKENS, 3, "1/2") != recipe.sequence(encoded(recipe), TOKENS, 3, "2/2")


def test_without_shuffling_the_question_stays_as_written() -> None:
    recipe = GraphCurriculum(shuffle=False)
    assert recipe.sequence(encoded(recipe), TOKENS, 0, "0/0").ids[:-1] == QUESTION


def test_the_frontier_is_named_evenly_and_the_path_alone_without_it() -> None:
    for labels, expected in (("path", {9}), ("frontier", {5, 9})):
        recipe = GraphCurriculum(labels=labels)
        named = Counter(recipe.sequence(encoded(recipe), TOKENS, 0, f"0/{epoch}").ids[-1] for epoch in range(400))
        assert named.keys() == expected
        assert all(count / 400 == pytest.approx(1 / len(expected), abs=0.1) for count in named.values())


def test_a_written_chain_follows_edges_along_any_shortest_path() -> None:
    question = "<eos> 1 2 | 1 3 | 2 4 | 3 5 | 4 6 | 5 6 | 0 7 [Q] 6 7 [R] 1"
    targets = {"0": [1], "1": [2, 3], "2": [4, 5], "3": [6]}
    problem = Problem("p", question, ("2", "4", "6"), "6", {"neighbor_k": targets, "frontier": targets})
    recipe = GraphCurriculum(kind="cot")
    chains = {recipe.sequence(encoded(recipe, problem), TOKENS, 0, f"0/{e}").ids[-6:-3] for e in range(60)}
    assert chains == {(2, 4, 6), (3, 5, 6)}


def test_relabelling_draws_the_numbers_of_the_nodes_anew_and_keeps_the_graph() -> None:
    recipe = GraphCurriculum(max_stage=4, relabel=True, shuffle=False)
    nodes = sorted({node for edge in edges_of(QUESTION) for node in edge})
    drawn = [recipe.sequence(encoded(recipe), TOKENS, 3, f"0/{epoch}").ids for epoch in range(20)]
    assert len(set(drawn)) > 15
    for ids in drawn:
        new = dict(zip((n for e in edges_of(QUESTION) for n in e), (n for e in edges_of(ids) for n in e), strict=True))
        assert sorted(new) == sorted(new.values()) == nodes
        assert [(new[s], new[t]) for s, t in edges_of(QUESTION)] == edges_of(ids)
        tail = ids[len(QUESTION) - 4 :]
        assert {tail[0], tail[1]} == {new[25], new[21]}
        assert tail[2:] == (R, new[1], LATENT, LATENT, LATENT, A, new[21], EOS)
    assert recipe.sequence(encoded(recipe), TOKENS, 3).ids[: len(QUESTION)] == QUESTION  # evaluation draws nothing


@pytest.mark.parametrize(("labels", "expected"), [("path", [{9}, {14}, {21}]), ("frontier", [{5, 9}, {18, 14}, {21}])])
def test_what_a_supervised_thought_must_hold_is_what_its_stage_would_name(labels: str, expected: list[set[int]]) -> None:
    recipe = GraphCurriculum(max_stage=4, labels=labels, supervision=1.0)
    drawn = [recipe.sequence(encoded(recipe), TOKENS, 3, f"0/{epoch}").slot_texts for epoch in range(40)]
    assert [{texts[slot][0] for texts in drawn} for slot in range(3)] == expected


# Answers


@pytest.mark.parametrize(("text", "answer"), [("21", "21"), ("9 14 21 [A] 21", "21"), (" 21 ", "21"), ("9 14", None), ("", None)])
def test_the_answer_is_the_node_after_the_question_mark_or_all_there_is(text: str, answer: str | None) -> None:
    found = extract(text, GraphCurriculum().extractors)
    assert (found.answer if found else None) == answer


# The published file


def test_published_rows_encode_as_published(data_folder: Path) -> None:
    rows = json.loads((data_folder / "prosqa_symbolic" / "valid.json").read_text(encoding="utf-8"))
    row = rows[0]
    edges = " | ".join(f"{s} {t}" for s, t in row["edges"])
    question = f"<eos> {edges} [Q] {row['target']} {row['neg_target']} [R] {row['root']}"
    problem = Problem("valid-1", question, ("3", "14", "16"), "16", {"neighbor_k": row["neighbor_k"]})
    recipe = GraphCurriculum(max_stage=4)
    made = recipe.sequence(encoded(recipe, problem), TOKENS, 3)
    flat = [token for s, t in row["edges"] for token in (BAR, s, t)][1:]
    assert list(made.ids) == [EOS, *flat, Q, 16, 13, R, 1, LATENT, LATENT, LATENT, A, 16, EOS]


# What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": "all"}, "labels=all: allowed are path, frontier"),
        ({"latents_from": "end"}, "latents_from=end: a search starts at its root; allowed: start"),
        ({"kind": "cot", "labels": "frontier"}, "labels=frontier: stage.kind=cot names no single node; allowed: path"),
    ],
)
def test_an_impossible_setting_says_what_is_allowed(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        GraphCurriculum(**options)


def test_problems_in_words_are_refused_by_name() -> None:
    words = Problem("train-3", "Every a is a b. Is Tom a b or c?", ("Tom is a a.",), "Tom is a b.")
    with pytest.raises(DataError, match=r"^train-3: 'Every a is a b\. Is Tom a b or c\?' is no graph in symbols"):
        encoded(GraphCurriculum(), words)


def test_nodes_of_several_tokens_are_refused() -> None:
    digits = Scratch(layers=1, width=32, heads=1, positions=64).load([PROBLEM]).tokenizer
    with pytest.raises(DataError, match=r"^test-0: .* is no graph in symbols of one token each"):
        GraphCurriculum().encode([PROBLEM], digits)


def test_problems_without_the_nodes_to_name_are_refused() -> None:
    bare = Problem("test-1", PROBLEM.question, PROBLEM.steps, PROBLEM.answer)
    with pytest.raises(DataError, match=r"^test-1: has no field 'neighbor_k'; allowed: dataset=prosqa_symbolic, which has$"):
        encoded(GraphCurriculum(), bare)
