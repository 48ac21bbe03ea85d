"""Plans drawn for a vote: what is drawn from, that text stays greedy, and that a draw knows nothing of its batch."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from latent_lab.backbone import Scratch
from latent_lab.grading.evaluate import Solver
from latent_lab.plans.arithmetic import Arithmetic
from latent_lab.plans.forcing import Sampled, nucleus
from latent_lab.plans.task import PlansTask
from latent_lab.plans.votes import point, voted, votes
from latent_lab.problems import Problem
from latent_lab.reasoner import LatentReasoner
from latent_lab.stages.planning import Planning

SUMS = [Problem("p", "How many?", ("<<1+2=3>>", "<<3*2=6>>"), "6"), Problem("q", "Who?", ("<<9-2=7>>",), "7")]


@pytest.mark.parametrize(
    ("top_p", "chance", "place"),
    [
        (1.0, 0.0, 1), (1.0, 0.49, 1), (1.0, 0.51, 2), (1.0, 0.79, 2), (1.0, 0.81, 0), (1.0, 0.999, 0),
        (0.6, 0.62, 1), (0.6, 0.63, 2), (0.6, 0.999, 2),  # of 0.5 and 0.3, which hold 0.8
        (0.49, 0.999, 1),
    ],
)  # fmt: skip
def test_the_fewest_likeliest_are_drawn_from(top_p: float, chance: float, place: int) -> None:
    assert nucleus(torch.tensor([0.2, 0.5, 0.3]).log(), top_p, chance) == place


def test_only_planning_tokens_are_drawn_and_only_from_among_themselves() -> None:
    """Of five tokens 1 and 2 are planning tokens; in row b text is likeliest."""
    scores = torch.tensor([[2.0, 3.0, 2.9, 0.0, 0.0], [3.0, 2.9, 2.9, 0.0, 0.0]])
    seen = set()
    for n in range(30):
        drawn = Sampled(["a", "b"], str(n), 1.0, 1.0, among=(1, 2))(torch.zeros(2, 4, dtype=torch.long), scores.clone())
        assert torch.equal(drawn[1], scores[1])
        (token,) = drawn[0].isfinite().nonzero()[:, 0].tolist()
        seen.add(token)
    assert seen == {1, 2}
    every = {
        int(Sampled(["a"], str(n), 1.0, 1.0)(torch.zeros(1, 4, dtype=torch.long), torch.zeros(1, 5)).argmax()) for n in range(60)
    }
    assert every == {0, 1, 2, 3, 4}


def test_a_draw_depends_on_the_problem_and_its_place_alone() -> None:
    def drawn(ids: list[str], width: int, keep: list[int] | None = None) -> list[int]:
        sampled = Sampled(ids, "0", 1.0, 1.0)
        sampled(torch.zeros(len(ids), width, dtype=torch.long), torch.zeros(len(ids), 99))
        if keep is not None:
            sampled.keep(keep)
        count = len(ids) if keep is None else len(keep)
        found: list[int] = sampled(torch.zeros(count, width + 1, dtype=torch.long), torch.zeros(count, 99)).argmax(-1).tolist()
        return found

    a, b, c = drawn(["a", "b", "c"], 5)
    assert len({a, b, c}) > 1
    assert drawn(["c", "a"], 9) == [c, a]
    assert drawn(["a", "b", "c"], 5, keep=[1, 2]) == [b, c]


def graded(temperature: float) -> dict[str, Any]:
    torch.manual_seed(0)
    backbone = Scratch(layers=1, width=32, heads=2, positions=128).load(SUMS)
    stage = Planning(num_prefix=0, num_special=1)
    stage.plan = Arithmetic()  # type: ignore[misc]
    stage.prepare(backbone, SUMS, None)  # type: ignore[arg-type]
    encoded = stage.encode(SUMS, backbone.tokenizer)
    assert stage.reading is not None
    with torch.no_grad():  # an untrained model that likes planning tokens
        backbone.model.get_output_embeddings().weight[[*stage.reading.ids]] += 0.3 * torch.randn(32)
    solver = Solver(LatentReasoner(backbone.model, backbone.tokens).eval(), backbone, stage, 0, 0, max_new_tokens=12)
    task = PlansTask(votes=4, temperature=temperature)
    return votes(solver, SUMS, encoded, solver.graded(SUMS, encoded), stage.reading, task, 0)


def test_without_heat_a_vote_is_the_greedy_answer() -> None:
    cold = graded(1e-6)
    for name in ("plans", "tokens"):
        assert (cold[name]["different_plans"], cold[name]["different_answers"]) == (1.0, 1.0)
        assert cold[name]["accuracy"]["value"] == cold["greedy"]
    assert (cold["samples"], cold["plans_over_greedy"]["value"], cold["plans_over_tokens"]["n"]) == (4, 0.0, 2)
    assert voted(cold) == "vote of 4: 0.0% with plans drawn, 0.0% with every token drawn; greedy 0.0%"


def row(answer: str | None, is_right: bool) -> dict[str, Any]:
    return {"answer": answer, "correct": is_right}


@pytest.mark.parametrize(
    ("rows", "worth"),
    [
        ([row("6", True), row("6.0", True), row("7", False)], 1.0),
        ([row("6", True), row("7", False), row("7", False)], 0.0),
        ([row("6", True), row("7", False)], 0.5),
        ([row("6", True), row(None, False), row(None, False)], 1.0),
        ([row(None, False)], 0.0),
    ],
)
def test_a_vote_compares_answers_as_they_are_graded(rows: list[dict[str, Any]], worth: float) -> None:
    assert point(rows) == worth


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: PlansTask(votes=1), "votes=1: allowed are 0 (no vote), or 2 and more"),
        (lambda: PlansTask(votes=2, temperature=0), "temperature=0: allowed are numbers above 0"),
        (lambda: PlansTask(votes=2, top_p=1.1), "top_p=1.1: allowed are shares above 0, up to 1"),
        (
            lambda: PlansTask(top_p=0.5),
            "votes=0: nothing is drawn, so temperature and top_p say nothing; leave them out, or give votes",
        ),
    ],
)
def test_an_impossible_vote_says_what_is_allowed(made: Callable[[], PlansTask], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        made()
