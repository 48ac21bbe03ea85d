"""Commuted operands: donors with the same digits and carries, answers that have to stay, and what readers say of the order."""

from typing import Any

import pytest
import torch

from latent_lab.grading.session import Session
from latent_lab.problems import Problem
from latent_lab.problems.arithmetic import Arithmetic, addition
from latent_lab.thoughts import commuted
from latent_lab.thoughts.columns import Exchanged
from latent_lab.thoughts.commuted import commuted_report, of_columns, said_of
from latent_lab.thoughts.pairs import COMMUTED, Columns, Pair, commuted_pairs, pair


def problems(count: int = 60, digits: int = 3) -> list[Problem]:
    return Arithmetic(digits=[digits], probabilities=[1.0], train_size=count).load("train")


def test_operands_are_exchanged_in_the_columns_asked_for() -> None:
    own = Columns.of(addition("p", 347, 285))
    assert [own.commuted(columns).problem("q").question for columns in ([0], [1, 2], range(3), [])] == [
        "345 + 287 =",
        "287 + 345 =",
        "285 + 347 =",
        "347 + 285 =",
    ]
    assert own.commuted([0]).added() == own.added() == [(2, 1), (3, 1), (6, 0)]


def test_every_target_of_a_commuted_pair_is_the_answer_as_it_was() -> None:
    found = commuted_pairs(problems(), 10, seed=0)
    assert [(p.column, p.donors) for p in found[::10]] == [(k, way) for k in range(3) for way in COMMUTED]
    for p in found:
        own, other = Columns.of(p.recipient), Columns.of(p.donor)
        assert {p.digit, p.composed, p.next, p.donor.answer} == {p.recipient.answer}
        assert (own.a[p.column], own.b[p.column]) == (other.b[p.column], other.a[p.column])
        assert own.a[p.column] != own.b[p.column]
        assert p.apart is None


# What readers say


def pairs() -> list[Pair]:
    """347 + 285: columns 7+5=12 and 4+8+1=13, and the donor 285 + 347."""
    return [pair(addition("p", 347, 285), addition("p/commuted", 285, 347), k, "commuted") for k in (0, 1)]


@pytest.mark.parametrize(
    ("texts", "right"),
    [
        (["7+5=12 write 2 carry 1", "4+8+1=13 write 3 carry 1"], {"operands": 1.0, "exchanged": 0.0, "total": 1.0, "write": 1.0}),
        (["5+7=12 write 2 carry 1", "4+8+1=13 write 3 carry 1"], {"operands": 0.5, "exchanged": 0.5, "total": 1.0, "write": 1.0}),
        (["6+6=12 write 2 carry 1", "no step"], {"operands": 0.0, "exchanged": 0.0, "total": 0.5, "write": 0.5}),
    ],
)
def test_what_a_reader_says_is_held_to_both_orders_and_to_the_result(texts: list[str], right: dict[str, float]) -> None:
    found = of_columns(texts, pairs(), seed=0)
    assert {name: score["value"] for name, score in found.items()} == right
    assert {(score["n"], score["clusters"]) for score in found.values()} == {(2, 1)}


# On a model


def encoder(at: Session) -> Any:
    return lambda given: at.trained.stage.encode(given, at.solver.backbone.tokenizer)


def test_readers_are_given_the_recipients_thought_and_then_the_donors(at: Session) -> None:
    given = pairs()
    encoded = encoder(at)([given[0].recipient, given[0].donor])
    thoughts = at.solver.thoughts(encoded).cpu()
    seen = []

    def read(vectors: Any, slots: Any) -> list[str]:
        seen.append((vectors, list(slots)))
        return [given[k].recipient.steps[k] for k in (0, 1)]

    known = {"p": encoded[0], "p/commuted": encoded[1]}
    report = said_of(at.solver, given, known, {"probe": read}, lambda step: step, 0)
    assert [slots for _, slots in seen] == [[0, 1], [0, 1]]
    assert torch.allclose(seen[0][0], thoughts[0, :2], atol=1e-5)
    assert torch.allclose(seen[1][0], thoughts[1, :2], atol=1e-5)
    assert report["probe"]["after"]["operands"]["value"] == 1, "such a reader does not follow the order"
    assert report["probe"]["after"]["exchanged"]["value"] == 0


def test_a_model_that_never_heeds_the_order_keeps_every_answer(at: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    some = problems(40, 2)

    def last_column_breaks(solver: Any, items: Any, conditions: Any, **_: Any) -> Exchanged:
        answers: dict[str, list[str | None]] = {
            c.name: [None if c.kind == "thought" and k == 1 else by_id[r.id].answer for r, _, k in items] for c in conditions
        }
        return Exchanged(answers, [by_id[d.id.partition("/")[0]].answer for _, d, _ in items])

    by_id = {p.id: p for p in some}
    real = commuted.write_all
    monkeypatch.setattr(commuted, "exchange_all", last_column_breaks)
    monkeypatch.setattr(commuted, "write_all", lambda s, p, e: real(s, p, e).__class__([[1]] * len(p), [], [True] * len(p)))
    report = commuted_report(at.solver, some, {}, encoder=encoder(at), most=5)
    assert (report["right"], report["excluded"]) == (40, {"no_slot": 0, "donor_wrong": 0})
    for way in COMMUTED:
        rows = {kind: {k: row["keep"]["value"] for k, row in report[way][kind]["digits=2"].items()} for kind in report[way]}
        assert rows["cache"] == rows["step"] == {"0": 1, "1": 1, "overall": 1}
        assert rows["thought"] == {"0": 1, "1": 0, "overall": 0.5}
        assert report[way]["cache"]["overall"]["n"] == 10


def test_a_model_that_is_never_right_has_no_pairs(at: Session) -> None:
    report = commuted_report(at.solver, at.problems, {}, encoder=encoder(at), most=4)
    assert report == {"right": 0, "excluded": {"no_slot": 0, "donor_wrong": 0}}
