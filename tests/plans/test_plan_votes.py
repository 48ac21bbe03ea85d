"""Plans drawn for a vote: what is drawn from, that text stays greedy, and that a draw knows nothing of its batch."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from latent_lab.backbone import Scratch
from latent_lab.grading.evaluate import Solver
from latent_lab.plans.arithmetic import Arithmetic
from latent_lab.plans.forcing import DrawnAmong
from latent_lab.plans.task import PlansTask
from latent_lab.plans.votes import voted, votes
from latent_lab.problems import Problem
from latent_lab.reasoner import LatentReasoner
from latent_lab.stages.planning import Planning

SUMS = [Problem("p", "How many?", ("<<1+2=3>>", "<<3*2=6>>"), "6"), Problem("q", "Who?", ("<<9-2=7>>",), "7")]


def test_only_planning_tokens_are_drawn_and_only_from_among_themselves() -> None:
    """Of five tokens 1 and 2 are planning tokens; in the second row text is likeliest."""
    scores = torch.tensor([[2.0, 3.0, 2.9, 0.0, 0.0], [3.0, 2.9, 2.9, 0.0, 0.0]])
    seen = set()
    for n in range(30):
        drawn = DrawnAmong([n, n], 1.0, 1.0, among=(1, 2))(torch.zeros(2, 4, dtype=torch.long), scores)
        assert torch.equal(drawn[1], scores[1])
        assert drawn[0].isfinite().nonzero()[:, 0].tolist() == [1, 2]
        seen.add(int(drawn[0].argmax()))
    assert seen == {1, 2}
    few = set()
    for n in range(30):
        few.add(int(DrawnAmong([n], 1.0, 0.5, among=(1, 2))(torch.zeros(1, 4, dtype=torch.long), scores[:1]).argmax()))
    assert few == {1}  # of these two it alone holds half of the probability, though not of all five


def test_a_draw_depends_on_its_seed_and_place_alone() -> None:
    """Also where the token before was left as it is, and in another batch."""
    prompt = torch.zeros(2, 4, dtype=torch.long)
    text, plan = torch.tensor([[9.0, 0.0, 0.0]] * 2), torch.tensor([[0.0, 1.0, 1.0]] * 2)
    both, alone = DrawnAmong([1, 2], 1.0, 1.0, among=(1, 2)), DrawnAmong([2], 1.0, 1.0, among=(1, 2))
    both(prompt, text)
    both.keep([1])
    alone(prompt[:1], plan[:1])
    assert torch.equal(both(prompt[:1], plan[:1]), alone(prompt[:1], plan[:1]))


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
