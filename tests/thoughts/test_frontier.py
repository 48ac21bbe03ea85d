"""Frontiers: groups by hand, attention that is the model's own, and the same questions asked of a pause model."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from latent_lab.grading.session import Session, session
from latent_lab.grading.task import Answers
from latent_lab.job import job
from latent_lab.problems import Problem
from latent_lab.thoughts import frontier
from latent_lab.thoughts.frontier import edge_groups, frontier_report, hits, looked_at, node_groups, on_edges, places_of_edges
from tests.tiny import train

EDGES = [[0, 2], [0, 3], [2, 4], [3, 5], [1, 5], [4, 6]]
GRAPH = Problem(
    "g", "<eos> 0 2 | 0 3 | 2 4 | 3 5 | 1 5 | 4 6 [Q] 6 5 [R] 0", ("2", "4", "6"), "6", {"edges": EDGES, "root": 0, "target": 6}
)


def test_groups_of_nodes_are_nested_and_move_on_with_every_step() -> None:
    assert node_groups(GRAPH, 0) == {"not_reachable": {1, 4, 5, 6}, "reachable": {0, 2, 3}, "frontier": {2, 3}, "optimal": {2}}
    assert node_groups(GRAPH, 1) == {"not_reachable": {1, 6}, "reachable": {0, 2, 3, 4, 5}, "frontier": {4, 5}, "optimal": {4}}
    assert node_groups(GRAPH, 3)["frontier"] == node_groups(GRAPH, 3)["optimal"] == set()


def test_groups_of_edges() -> None:
    assert edge_groups(GRAPH, 0)["reachable"] == edge_groups(GRAPH, 0)["frontier"] == [(0, 2), (0, 3)]
    assert edge_groups(GRAPH, 0)["optimal"] == [(0, 2)]
    one = edge_groups(GRAPH, 1)
    assert (one["frontier"], one["optimal"]) == ([(2, 4), (3, 5)], [(2, 4)])
    assert one["not_reachable"] == [(1, 5), (4, 6)]
    assert edge_groups(GRAPH, 3)["optimal"] == []


def test_attention_is_summed_over_an_edges_tokens() -> None:
    places = places_of_edges(GRAPH.question)
    assert places == {(0, 2): 1, (0, 3): 4, (2, 4): 7, (3, 5): 10, (1, 5): 13, (4, 6): 16}
    weights = torch.zeros(24)
    weights[1:4] = torch.tensor([1.0, 2.0, 3.0])
    weights[4] = 0.5
    assert on_edges(GRAPH, weights, 0)["frontier"] == [6.0, 0.5]
    assert on_edges(GRAPH, weights, 0)["optimal"] == [6.0]


def test_hits_and_their_floors() -> None:
    groups = [node_groups(GRAPH, 0)] * 2
    right = {node: float(node in (2, 3)) for node in range(7)}
    wrong = {node: float(node == 6) for node in range(7)}
    found = hits([right, right], [wrong, wrong], groups, ["a", "b"], 0)
    assert (found["frontier_top"]["value"], found["recall"]["value"]) == (1, 1)
    assert found["frontier_top"]["floors"]["other_problem"]["value"] == 0
    assert found["frontier_top"]["floors"]["chance"]["value"] == pytest.approx(2 / 7)
    assert hits([wrong], [right], groups[:1], ["a"], 0)["recall"]["value"] == 0


SMALL = ("experiment=superposition_small", "model.width=32", "model.heads=2", "dataset.train_size=24", "dataset.valid_size=8",
         "dataset.test_size=9", "batch_size=8", "device=cpu", "eval_every=null", "stage.supervision=0")  # fmt: skip
METHODS = {"thoughts": (), "pause": ("stage.kind=pause",)}


@pytest.fixture(scope="module", params=METHODS)
def at(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    folder = tmp_path_factory.mktemp("outputs")
    run: Path = train(folder, "stage.stages=[0,2]", "stage.epochs=[1,1]", *METHODS[request.param], base=SMALL)
    with session(job("eval", [f"run={run}", "device=cpu", "batch_size=4", f"out={folder}/e"]), Answers()) as opened:
        yield opened


def encoded(at: Session) -> Any:
    return at.trained.stage.encode(at.problems, at.solver.backbone.tokenizer)


def test_a_report_has_every_slot_group_and_block(at: Session) -> None:
    model = at.solver.reasoner.model
    before = model.config._attn_implementation
    report = frontier_report(at.solver, at.problems, encoded(at))
    assert model.config._attn_implementation == before
    assert report["feeds"] is (at.solver.reasoner.loop.feeds == "thoughts")
    assert set(report["inner"]) == {"0", "1"}
    assert set(report["inner"]["0"]) == set(frontier.GROUPS)
    assert set(report["hits"]["1"]) == {"frontier_top", "optimal_top", "recall"}
    assert set(report["attention"]) == {"1", "2"}
    assert report["attention"]["1"]["0"]["reachable"] == report["attention"]["1"]["0"]["frontier"]  # edges that leave the root
    assert report["inner"]["0"]["frontier"]["n"] == report["n"] == 9


def test_attention_adds_up_to_the_heads_and_belongs_to_the_position_before_each_slot(at: Session) -> None:
    some = encoded(at)[:5]
    thoughts, counts, attention = looked_at(at.solver, some)
    assert counts.tolist() == [2] * 5
    for block in attention:
        torch.testing.assert_close(block.sum(-1), torch.full((5, 2), 2.0))
    for row, one in enumerate(some):
        end = len(one.question)  # the first slot; the root stands before it
        assert not any(block[row, 0, end:].any() for block in attention)
        assert all(block[row, 1, end].any() for block in attention)
        assert not any(block[row, 1, end + 1 :].any() for block in attention)
    torch.testing.assert_close(thoughts, at.solver.thoughts(some))


def test_what_is_no_graph_is_refused(at: Session) -> None:
    with pytest.raises(ValueError, match="p: its meta holds no edges, root and target"):
        frontier_report(at.solver, [Problem("p", "1 + 1 =", (), "2")], encoded(at)[:1])
