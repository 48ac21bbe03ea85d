"""Agreement: where the model is wrong, a reader of the thought and a solver of the problem say different things."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from latent_lab.grading.session import session
from latent_lab.grading.task import Answers
from latent_lab.job import job
from latent_lab.problems.arithmetic import addition
from latent_lab.thoughts import agreement
from latent_lab.thoughts.agreement import (
    Disagreement,
    Exchange,
    Thinking,
    agreement_report,
    disagreements,
    misled,
    report_of,
    think,
)
from latent_lab.thoughts.grammar import ADDITION
from tests.tiny import train

PROBLEMS = [addition("a", 125, 859), addition("b", 11, 22)]  # 984: 5+9, 2+5+1, 1+8; 33


def test_disagreements_are_steps_of_which_the_answer_shows_another_value() -> None:
    assert disagreements(PROBLEMS, ["984", "33"], ADDITION, lambda step: step) == []
    assert disagreements(PROBLEMS, ["994", None], ADDITION, lambda step: 2 * step) == [Disagreement(0, 2, "9", "8")]
    assert disagreements(PROBLEMS, ["84", "3"], ADDITION, lambda step: step) == [], "an answer of another length shows nothing"
    assert disagreements(PROBLEMS, ["994", None], ADDITION, lambda step: step, after=[1, -1]) == [], "the exchanged slot itself"
    assert disagreements(PROBLEMS, ["994", None], ADDITION, lambda step: step, after=[0, 0]) == [Disagreement(0, 1, "9", "8")]
    overflow = [addition("c", 55, 66)]  # 121; its last step is the carry, which does not count
    assert disagreements(overflow, ["221"], ADDITION, lambda step: step) == []


def test_a_reader_of_the_model_and_a_solver_of_the_problem_are_told_apart() -> None:
    cases = [Disagreement(0, 1, "9", "8"), Disagreement(1, 0, "4", "3")]
    reader = report_of(["2+6+1=9 write 9", "1+3=4 write 4"], cases, PROBLEMS, ADDITION, 0)
    solver = report_of(["2+5+1=8 write 8", "nonsense"], cases, PROBLEMS, ADDITION, 0)
    assert (reader["model"]["value"], reader["gold"]["value"], reader["difference"]["value"]) == (1.0, 0.0, 1.0)
    assert (solver["model"]["value"], solver["gold"]["value"], solver["difference"]["value"]) == (0.0, 0.5, -0.5)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(
        tmp_path_factory.mktemp("outputs"), "stage=coconut", "stage.stages=[2]", "stage.curriculum=false", "stage.epochs=[1]"
    )


def test_left_alone_the_thoughts_and_answers_are_the_models_own(run: Path, tmp_path: Path) -> None:
    with session(job("eval", [f"run={run}", "device=cpu", f"out={tmp_path / 'eval'}", "batch_size=4"]), Answers()) as at:
        encoded = at.trained.stage.encode(at.problems, at.solver.backbone.tokenizer)
        clean = think(at.solver, at.problems, encoded)
        torch.testing.assert_close(clean.thoughts, at.solver.thoughts(encoded), atol=1e-5, rtol=1e-4)
        assert clean.answers == [row["answer"] for row in at.solver.graded(at.problems, encoded)]
        exchange = misled(clean, at.problems, lambda step: step, seed=1)
        assert set(exchange.slots.tolist()) <= {-1, 0, 1}
        other = think(at.solver, at.problems, encoded, exchange)
        for i, slot in enumerate(exchange.slots.tolist()):
            if slot >= 0:
                torch.testing.assert_close(other.thoughts[i, slot], exchange.vectors[i])
                torch.testing.assert_close(other.thoughts[i, :slot], clean.thoughts[i, :slot], atol=1e-5, rtol=1e-4)


def test_natural_errors_are_used_where_there_are_enough_and_else_the_model_is_misled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the model thinks is given: its thoughts hold the digit it will write, and a reader that looks says that digit."""
    problems = [addition(f"p{i}", 111 + 10 * i, 222) for i in range(4)]  # 333, 343, ...: no carries
    wrong = {"natural": ["933", "943", "953", "963"], "misled": ["334", "344", "354", "364"]}

    def scripted(solver: object, given: object, encoded: object, exchange: Exchange | None = None) -> Thinking:
        answers = wrong["misled" if exchange else "natural"]
        return Thinking(torch.tensor([[[float(d)] for d in reversed(a)] for a in answers]), list(answers))

    def looks(vectors: Tensor | None, slots: Sequence[int]) -> list[str]:
        return [f"1+2=3 write {int(v)}" for v in vectors[:, 0]] if vectors is not None else ["1+2=3 write 0"] * len(slots)

    def solves(vectors: Tensor | None, slots: Sequence[int]) -> list[str]:
        return [f"1+2=3 write {problems[i % 4].answer[-1 - slot]}" for i, slot in enumerate(slots)]

    monkeypatch.setattr(agreement, "think", scripted)
    monkeypatch.setattr(agreement, "MOST_ROUNDS", 3)
    readers = {"looks": looks, "solves": solves}

    def made(least: int) -> dict[str, Any]:
        return agreement_report(None, problems, [], ADDITION, readers, least=least)  # type: ignore[arg-type]

    natural = made(4)
    assert (natural["errors"], natural["made"], natural["wrong"]) == (4, 0, 1.0)
    for name, (model, gold) in {"looks": (1.0, 0.0), "solves": (0.0, 1.0)}.items():
        assert (natural["readers"][name]["model"]["value"], natural["readers"][name]["gold"]["value"]) == (model, gold)
    assert natural["readers"]["looks"]["without"]["model"]["value"] == 0.0
    misled = made(5)  # the first digit is wrong now, which no exchange of an earlier thought can have caused
    assert (misled["made"], misled["errors"], misled["readers"]) == (3, 0, {})

    wrong["misled"] = ["733", "743", "753", "763"]  # the last digit comes after every thought that may be exchanged
    enough = made(5)
    assert (enough["made"], enough["errors"]) == (2, 8), "four errors a round, until there are five"
    assert enough["readers"]["looks"]["model"]["value"] == 1.0
    assert enough["readers"]["looks"]["difference"]["n"] == 4, "intervals resample the four problems, not the eight errors"
