"""Column interchange: targets worked out by hand, pairs that tell, exchanges that are exact, and a table that counts right."""

from typing import Any

import pytest
import torch

from latent_lab.grading.session import Session
from latent_lab.problems import Problem
from latent_lab.problems.arithmetic import Arithmetic, addition
from latent_lab.thoughts import columns
from latent_lab.thoughts.columns import (
    Condition,
    Exchanged,
    column_report,
    exchange_all,
    exchange_answers,
    outcome,
    slots_of_step,
)
from latent_lab.thoughts.editing import Prompts, write_all
from latent_lab.thoughts.pairs import Columns, independent_pairs, minimal_pairs, pair


def problems(count: int = 60, digits: int = 3) -> list[Problem]:
    return Arithmetic(digits=[digits], probabilities=[1.0], train_size=count).load("train")


# By hand


def test_the_targets_of_a_pair() -> None:
    recipient, donor = addition("r", 347, 285), addition("d", 125, 859)  # 632: 2c1 3c1 6; 984: 4c1 8 9
    found = [pair(recipient, donor, k, "independent") for k in range(3)]
    assert [p.digit for p in found] == ["634", "682", "932"]
    assert [p.composed for p in found] == ["634", "582", "932"]
    assert [p.next for p in found] == ["582", "932", "632"]
    assert [found[1].target(kind) for kind in ("cache", "step", "thought", "residual")] == ["682", "682", "582", "932"]
    assert pair(recipient, addition("d", 700, 859), 3, "final_carry").digit == "1632"
    assert pair(addition("r", 700, 859), recipient, 3, "final_carry").digit == "559"


def test_a_column_that_says_something_else_changes_all_after_it() -> None:
    own = Columns.of(addition("r", 999, 1 + 100))  # 1100-2: 0c1 0c1 1c1
    assert own.answer() == str(999 + 101)
    assert own.answer({0: (5, 0)}) == "1095"
    assert own.answer({2: (5, 0)}) == "500"
    assert own.with_digit(2, 5) == "1500"
    with pytest.raises(ValueError, match="asks for no sum of two equally long numbers"):
        Columns.of(Problem("p", "why?", (), "1"))


def test_independent_pairs_tell_and_leave_the_final_carry_alone() -> None:
    found = independent_pairs(problems(), 40, seed=0)
    assert {(p.column, p.donors) for p in found} == {
        (0, "independent"),
        (1, "independent"),
        (2, "independent"),
        (2, "last_column"),
        (3, "final_carry"),
    }
    for p in found:
        assert p.recipient.id != p.donor.id
        assert p.digit != p.recipient.answer
        final = [Columns.of(q).added()[-1][1] for q in (p.recipient, p.donor)]
        if p.donors == "independent":
            assert len({p.digit, p.recipient.answer, p.donor.answer}) == 3
            assert len({p.composed, p.recipient.answer, p.donor.answer}) == 3
            assert p.column < 2 or final[0] == final[1]
        else:
            assert final[0] != final[1]
    assert [p.column for p in found if p.donors == "independent"] == [0] * 40 + [1] * 40 + [2] * 40
    assert found == independent_pairs(problems(), 40, seed=0)


def test_minimal_pairs_differ_in_one_digit_and_do_to_the_carry_what_they_say() -> None:
    for p in minimal_pairs(problems(), 10, seed=1):
        own, other = Columns.of(p.recipient), Columns.of(p.donor)
        assert [k for k in range(3) if own.a[k] != other.a[k]] == [p.column]
        assert own.b == other.b
        carries = own.added()[p.column][1], other.added()[p.column][1]
        assert (carries[0] == carries[1]) == (p.donors == "same_carry")
        assert p.composed == p.donor.answer
        assert (p.digit == p.donor.answer) == (p.donors == "same_carry")
        assert p.apart == ("last_column" if (p.column, p.donors) == (2, "flipped_carry") else None)


@pytest.mark.parametrize(("answer", "is_what"), [("1", 0), ("2", 1), ("3", 2), (None, 3), ("4", 3)])
def test_an_answer_is_one_outcome(answer: str | None, is_what: int) -> None:
    assert outcome(answer, "1", "2", "3") == tuple(i == is_what for i in range(4))
    assert outcome("1", "1", "1", "3") == (True, False, False, False)


# On a model


def test_an_exchange_with_oneself_changes_nothing(at: Session) -> None:
    encoded = at.trained.stage.encode(at.problems, at.solver.backbone.tokenizer)
    clean = write_all(at.solver, at.problems, encoded)
    conditions = [Condition("cache"), Condition("step"), Condition("thought"), Condition("residual", 1), Condition("residual", 2)]
    pairs = [(e, e, k) for e in encoded for k in (0, 1, 2)]
    made = exchange_all(at.solver, pairs, conditions)
    want = [answer for answer in clean.answers for _ in range(3)]
    assert made.donors == want
    assert made.answers == {c.name: want for c in conditions}


def test_batches_do_not_change_what_an_exchange_does(at: Session) -> None:
    encoded = at.trained.stage.encode(at.problems, at.solver.backbone.tokenizer)
    pairs = [(encoded[i], encoded[(i * 3 + 1) % 11], i % 3) for i in range(11)]
    for kind, block in (("cache", None), ("step", None), ("thought", None), ("residual", 1)):
        whole = exchange_answers(at.solver, pairs, kind=kind, block=block)
        assert whole == [exchange_answers(at.solver, [one], kind=kind, block=block)[0] for one in pairs]


def test_slots_of_a_step_and_of_the_one_after_the_last(at: Session) -> None:
    (two,) = at.trained.stage.encode([addition("p", 11, 22)], at.solver.backbone.tokenizer)
    assert [slots_of_step(at.solver, two, step, 3) for step in (0, 1, 2)] == [[0], [1], [2]]
    assert slots_of_step(at.solver, two, 2, 2) == []


def test_prompts_go_on_for_any_rows(at: Session) -> None:
    encoded = at.trained.stage.encode(at.problems[:4], at.solver.backbone.tokenizer)
    prompts = Prompts(at.solver, encoded)
    whole = columns.write(prompts, [""] * 4)
    some = columns.write(prompts, [""] * 3, rows=torch.tensor([3, 1, 1]))
    assert some.ids == [whole.ids[3], whole.ids[1], whole.ids[1]]


@pytest.mark.parametrize("kind", ["cache", "thought"])
def test_a_model_that_does_as_worked_out_scores_all_and_one_that_ignores_it_nothing(
    at: Session, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    some = problems(40, 2)

    def perfect(solver: Any, items: Any, conditions: Any, **_: Any) -> Exchanged:
        known = {p.id: p for p in (*some, *made)}
        pairs = [pair(known[r.id], known[d.id], k, "final_carry" if k == 2 else "independent") for r, d, k in items]
        answers: dict[str, list[str | None]] = {
            c.name: [p.target(c.kind) if c.source == "donor" and c.kind == kind else p.recipient.answer for p in pairs]
            for c in conditions
        }
        return Exchanged(answers, [p.donor.answer for p in pairs])

    made: list[Problem] = []
    stage = at.trained.stage

    def encoder(given: Any) -> Any:
        made.extend(given)
        return stage.encode(given, at.solver.backbone.tokenizer)

    real = columns.write_all
    monkeypatch.setattr(columns, "exchange_all", perfect)
    monkeypatch.setattr(columns, "write_all", lambda s, p, e: real(s, p, e).__class__([[1]] * len(p), [], [True] * len(p)))
    report = column_report(at.solver, some, encoder=encoder, most=20, most_minimal=5, most_other=10)
    other = {"cache": "thought", "thought": "cache"}[kind]
    assert report["right"] == 40
    for sort in ("independent", "same_carry", "flipped_carry"):
        for row in (*report[sort][kind]["digits=2"].values(), report[sort][kind]["overall"]):
            assert (row["target"]["value"], row["keep"]["value"]) == (1, 0)
        assert report[sort][other]["overall"]["keep"]["value"] == 1
    assert report["independent"][kind]["digits=2"]["0"]["n"] == 20
    assert report["independent"][kind]["overall"]["n"] == 40  # neither the final carry nor the last column's other pairs
    assert report["necessity"][kind]["noise"]["overall"]["wins"]["value"] == 1
    assert report["necessity"][kind]["noise"]["overall"]["accuracy"]["value"] == 0
    assert report["summary"][kind]["least_target"]["value"] == 1
    assert report["summary"][other]["most_donor"]["value"] == 0


def test_a_model_that_is_never_right_has_no_pairs(at: Session) -> None:
    report = column_report(at.solver, at.problems, most=4, most_minimal=2)
    assert report["right"] == 0
    assert report["summary"] == {}
