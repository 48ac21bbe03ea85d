"""What became of a written chain: the six categories, worked out by hand on one graph."""

from dataclasses import replace
from itertools import pairwise

import pytest

from latent_lab.problems.graph_process import PROCESSES, nodes_of, process
from latent_lab.problems.graphs import Graph
from latent_lab.problems.prosqa import ProsQA, symbolic, terse, text

# Two ways to the lempus: by the fompus, and by the terpus and then the fompus. Tom is no yerpus; the gorpus is a leaf of its own.
GRAPH = Graph(
    symbols=("Tom", "Davis", "terpus", "fompus", "lempus", "yerpus", "gorpus"),
    edges=((0, 2), (0, 3), (2, 3), (1, 3), (3, 4), (1, 5), (2, 6)),
    root=0,
    target=4,
    neg_target=5,
    path=(0, 3, 4),
    is_target_first=True,
    order=(0, 1, 2, 3, 4, 5, 6),
)
META = text("x", GRAPH).meta

TABLE = {
    (0, 3, 4): "correct_path",
    (0, 2, 3, 4): "longer_path",
    (0, 2, 6): "wrong_target",
    (0, 3): "wrong_target",
    (0,): "wrong_target",
    (0, 4): "hallucination",
    (1, 3, 4): "hallucination",
    (1, 5): "hallucination",
    (3, 4): "hallucination",
    (0, 3, 5): "hallucination",
}


@pytest.mark.parametrize("nodes", TABLE)
def test_a_whole_chain_must_lead_from_the_root_to_the_target(nodes: tuple[int, ...]) -> None:
    assert {process(META, list(nodes), is_right) for is_right in (True, False)} == {TABLE[nodes]}


def test_without_a_chain_the_answer_decides_and_an_unreadable_one_is_a_hallucination() -> None:
    assert process(META, [], is_right=True) == "correct_label"
    assert process(META, [], is_right=False) == "incorrect_label"
    assert process(META, None, is_right=True) == "hallucination"


def test_after_thoughts_the_shortest_way_stands_for_the_first_steps() -> None:
    found = {nodes: process(META, list(nodes), True, "first") for nodes in [(3, 4), (4,), (2, 3, 4), (2, 6), (1, 3, 4), (5,)]}
    assert found == {
        (3, 4): "correct_path",
        (4,): "correct_path",
        (2, 3, 4): "longer_path",
        (2, 6): "wrong_target",
        (1, 3, 4): "hallucination",
        (5,): "hallucination",
    }


def test_before_thoughts_the_shortest_way_stands_for_the_last_steps() -> None:
    found = {nodes: process(META, list(nodes), True, "last") for nodes in [(0, 3), (0, 2), (0, 2, 6), (3, 4)]}
    assert found == {(0, 3): "correct_path", (0, 2): "longer_path", (0, 2, 6): "wrong_target", (3, 4): "hallucination"}


READ = [
    ("text", None, "Tom is a fompus.\nEvery fompus is a lempus.\n", [0, 3, 4]),
    ("text", "first", "Every fompus is a lempus.\n", [3, 4]),
    ("text", None, "Tom is a fompus.\nEvery terpus is a fompus.\n", None),
    ("text", None, "Tom is a wumpus.\n", None),
    ("text", None, "Tom is a fompus. Every\n", None),
    ("text", None, " \n", []),
    ("terse", None, "at Tom\nat fompus\nat lempus\n", [0, 3, 4]),
    ("terse", "first", "at lempus", [4]),
    ("terse", None, "Tom fompus", None),
    ("terse", None, "", []),
    ("symbolic", None, "3 4 ", [0, 3, 4]),
    ("symbolic", "first", "4", [4]),
    ("symbolic", None, "3 | 4", None),
    ("symbolic", None, "", []),
]


@pytest.mark.parametrize(("form", "left_out", "chain", "nodes"), READ)
def test_every_form_is_read(form: str, left_out: str | None, chain: str, nodes: list[int] | None) -> None:
    assert nodes_of(META, form, chain, left_out) == nodes


@pytest.mark.parametrize("form", ["text", "terse", "symbolic"])
def test_every_gold_chain_is_a_correct_path_however_many_of_its_steps_are_thought(form: str) -> None:
    dataset = ProsQA(form=form, size=60)
    gap = " " if form == "symbolic" else "\n"
    for problem in dataset.load("test"):
        for thought in range(len(problem.steps)):
            chain = gap.join(problem.steps[thought:])
            assert dataset.process(problem, chain, False, "first" if thought else None) == "correct_path", (problem, thought)
        assert dataset.process(problem, "", True) == "correct_label"


def test_the_two_options_are_told_apart_by_where_a_chain_of_real_edges_ends() -> None:
    other = replace(GRAPH, root=1, target=4, path=(1, 3, 4), is_target_first=False, neg_target=6)
    for graph in (GRAPH, other):
        for write, form in ((text, "text"), (terse, "terse"), (symbolic, "symbolic")):
            problem = write("x", graph)
            chain = (" " if form == "symbolic" else "\n").join(problem.steps)
            assert ProsQA(form=form).process(problem, chain, True) == "correct_path"
    assert set(pairwise(other.path)) <= set(other.edges)
    assert set(TABLE.values()) | {"correct_label", "incorrect_label"} == set(PROCESSES)
