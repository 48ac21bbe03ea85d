"""Attention on planning tokens beside the text around them: partners by hand, masses by hand, and the command."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from latent_lab.backbone import Scratch
from latent_lab.grading.evaluate import Solver
from latent_lab.loop import Loop
from latent_lab.plans.arithmetic import Arithmetic
from latent_lab.plans.attention import Masses, masses, pairs
from latent_lab.plans.base import PlanError
from latent_lab.problems import Problem
from latent_lab.reasoner import LatentReasoner
from latent_lab.report.attention import summary
from latent_lab.sequences import Role
from latent_lab.stages.planning import Planning
from tests.tiny import evaluate, train

SUMS = [Problem("p", "How many?", ("<<1+2=3>>", "<<3*2=6>>"), "6"), Problem("q", "Who?", ("<<9-2=7>>",), "7")]
Q, P, S = Role.QUESTION, Role.PLAN, Role.STEP


def test_partners_stand_a_blocks_length_before_and_after() -> None:
    roles = torch.tensor([[Q, Q, P, P, S, S, S, P, S, S], [P, S, S, Q, Q, Q, Q, Q, Q, Q]])
    real = torch.tensor([[1] * 10, [1] * 3 + [0] * 7])
    found = pairs(roles, real)
    assert found.before_BT[0].tolist() == [0, 0, 0, 1, 0, 0, 0, 6, 0, 0]
    assert found.after_BT[0].tolist() == [0, 0, 4, 5, 0, 0, 0, 8, 0, 0]
    seen = {(int(q), int(t)) for q, t in found.counts_BQT[0].nonzero()}
    # Step tokens strictly after the partner behind: 5, 6, 8 and 9 for the first of the block, 6, 8 and 9 for the second.
    assert seen == {(5, 2), (6, 2), (8, 2), (9, 2), (6, 3), (8, 3), (9, 3), (9, 7)}
    assert not found.counts_BQT[1].any()  # its block has nothing before it


@pytest.mark.parametrize("sees", ["all", "segment"])
def test_masses_are_sums_over_text_tokens(sees: str) -> None:
    torch.manual_seed(0)
    backbone = Scratch(layers=2, width=32, heads=2, positions=128).load(SUMS)
    stage = Planning(num_prefix=0, num_special=1, text_sees=sees)
    stage.plan = Arithmetic()  # type: ignore[misc]
    stage.prepare(backbone, SUMS, None)  # type: ignore[arg-type]
    encoded = stage.encode(SUMS, backbone.tokenizer)
    loop = stage.loop()
    solver = Solver(LatentReasoner(backbone.model, backbone.tokens, loop).eval(), backbone, stage, 0, 0, 40)
    found = masses(solver, encoded)
    assert backbone.model.config._attn_implementation == "sdpa"
    assert found.plan.shape == found.matched.shape == (2, 2, 2)
    if sees == "segment":
        assert np.all(found.matched[1] < found.plan[1])
        return
    assert loop == Loop()
    backbone.model.set_attn_implementation("eager")
    for row, problem in enumerate(encoded):
        sequence = stage.sequence(problem, backbone.tokens, 0)
        with torch.no_grad():
            weights = backbone.model(torch.tensor([sequence.ids]), output_attentions=True).attentions[1][0, 1]
        plan = matched = 0.0
        asking = set()
        for at in (i for i, role in enumerate(sequence.roles) if role == P):
            for q in range(at + 2, len(sequence.ids)):
                if sequence.roles[q] != P:
                    plan += float(weights[q, at])
                    matched += float(weights[q, at - 1] + weights[q, at + 1]) / 2
                    asking.add(q)
        assert found.plan[row, 1, 1] == pytest.approx(plan, rel=1e-4)
        assert found.matched[row, 1, 1] == pytest.approx(matched, rel=1e-4)
        assert found.num_queries[row] == len(asking)


def test_means_are_over_text_tokens_and_intervals_over_problems() -> None:
    plan = np.array([[[2.0, 1.0]], [[1.0, 0.0]], [[0.0, 0.0]]])
    found = summary(Masses(plan, plan / 2, np.array([4, 2, 0])))
    assert (found["problems"], found["text_tokens"], found["heads_above"]) == (2, 6, 1)
    assert (found["plan"], found["matched"]) == (pytest.approx(4 / 12), pytest.approx(2 / 12))
    first, second = found["heads"]
    assert (first["plan"], first["matched"]) == (0.5, 0.25)
    assert first["difference"] == {"value": 0.25, "n": 2, "low": 0.25, "high": 0.25}
    assert (second["difference"]["low"], second["difference"]["high"]) == (0.0, 0.125)


def test_the_command_writes_a_table_and_a_figure(tmp_path: Path) -> None:
    settings = ("stage=planning", "stage.epochs=[0.4]")
    run = train(tmp_path, *settings, "plan=arithmetic", "stage.num_prefix=0", "stage.num_special=1")
    found = evaluate(run, "task=attention", "limit=5", f"out={tmp_path / 'o'}")
    assert len(found["heads"]) == 4
    lines = list(csv.DictReader((tmp_path / "o" / "heads.csv").open()))
    assert [(line["layer"], line["head"]) for line in lines] == [("0", "0"), ("0", "1"), ("1", "0"), ("1", "1")]
    assert [float(line["plan"]) for line in lines] == [head["plan"] for head in found["heads"]]
    assert (tmp_path / "o" / "heads.png").read_bytes().startswith(b"\x89PNG")
    assert evaluate(run, "task=attention", "limit=5", f"out={tmp_path / 'o'}") == found
    with pytest.raises(PlanError, match=r"writes no planning tokens; allowed: runs of stage=planning with a plan$"):
        evaluate(train(tmp_path, *settings), "task=attention")
