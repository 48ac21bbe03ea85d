"""Statements about what a run is about to answer: each true as often as not, and scored beside what knows nothing."""

from pathlib import Path
from typing import Any

import torch

from latent_lab.backbone import digit_tokenizer
from latent_lab.problems.arithmetic import Arithmetic
from latent_lab.thoughts.foretold import FEWEST, digit_at, digit_statement, foretold, is_wrong
from latent_lab.thoughts.grammar import ADDITION
from latent_lab.thoughts.oracle_options import OracleOptions
from latent_lab.thoughts.oracle_others import foretold_part
from latent_lab.thoughts.questions import NO, YES, Material, Mixture, Question, Writer
from latent_lab.thoughts.store import ThoughtStore

PROBLEMS = Arithmetic(train_size=300, digits=[2], probabilities=[1.0]).load("train")


def row(answer: str | None, is_right: bool | None = True) -> dict[str, Any]:
    return {"answer": answer, "correct": is_right}


class Stored(ThoughtStore):
    """A store that was never written: a thought holds the number of its problem."""

    def layer(self, number: int) -> torch.Tensor:
        return torch.arange(float(len(self.rows)))[:, None, None] + torch.zeros(len(self.rows), 3, 4)


def material(wrong: int) -> Material:
    """Of the run's answers the first so many are one too high."""
    store = Stored(Path(), {"layers": [0], "shards": []})
    store.__dict__["rows"] = [
        {"id": p.id, "question": p.question, "steps": list(p.steps), "gold": p.answer, "num_slots": 3, "meta": {},
         "answer": str(int(p.answer) + (i < wrong)), "correct": i >= wrong}
        for i, p in enumerate(PROBLEMS)
    ]  # fmt: skip
    return Material(store, ADDITION)


def test_places_are_counted_from_the_units_and_shorter_answers_say_nothing() -> None:
    assert [digit_at(place, row("632")) for place in (1, 2, 3, 4)] == ["2", "3", "6", None]
    assert [digit_at(1, row(answer)) for answer in (None, "-12", "1.5", "True")] == [None] * 4
    text, holds = digit_statement("3", 2)
    assert text == "3 at place 2"
    assert [holds(row(answer)) for answer in ("632", "612", "3")] == [True, False, None]


def test_an_answer_is_wrong_where_it_was_graded_so() -> None:
    assert [is_wrong(row("1", given)) for given in (True, False, None)] == [False, True, None]


def test_what_too_few_training_problems_say_is_not_asked() -> None:
    rows = [row("17", i >= FEWEST) for i in range(2 * FEWEST)] + [row("25")] * FEWEST
    found = foretold(rows)
    assert [text for text, _ in found["wrong"]] == ["answer wrong"]
    assert [text for text, _ in found["digit"]] == ["5 at place 1", "7 at place 1", "1 at place 2", "2 at place 2"]
    assert foretold(rows[1:])["wrong"] == []


def mixture(wrong: int) -> Mixture:
    tasks = {"step": 0.001, "foretell": 1.0}
    options = OracleOptions(tasks=tasks, none_share=0, text_only_share=0, text_share=0)
    return Mixture(material(wrong), Writer(digit_tokenizer(PROBLEMS, 400)), options)


def test_yes_and_no_are_equally_frequent_whatever_is_stated_and_true_of_their_problem() -> None:
    made = mixture(wrong=100)
    told = dict(each for stated in foretold(made.material.rows).values() for each in stated)
    asked = [e for k in range(20) for e in made.draw(str(k)) if e.question and e.question.task == "foretell"]
    for e in asked:
        assert e.question is not None
        assert told[e.question.about](made.material.rows[e.problem]) is (e.target == YES)
        assert e.slots == (0, 1, 2), "all thoughts are given"
    wrong = [e.target for e in asked if e.question and e.question.about == "answer wrong"]
    for given in (wrong, [e.target for e in asked]):
        assert 0.47 < given.count(YES) / len(given) < 0.53
    assert 0.45 < len(wrong) / len(asked) < 0.55, "each of the two kinds as often as the other"


def test_a_run_that_is_never_wrong_is_asked_for_its_digits_alone() -> None:
    asked = {e.question.about for e in mixture(wrong=0).draw("0") if e.question and e.question.task == "foretell"}
    assert asked
    assert all(" at place " in about for about in asked)


def test_what_is_not_asked_changes_no_other_question() -> None:
    without, off = ({"step": 6.0, "yes_no": 1.0} | more for more in ({}, {"foretell": 0.0}))
    writer = Writer(digit_tokenizer(PROBLEMS, 400))
    first, second = (Mixture(material(100), writer, OracleOptions(tasks=tasks)).draw("0") for tasks in (without, off))
    assert first == second


class Knowing:
    """An oracle that finds the number of the problem in its vectors, and knows the run's answer to it; else it says yes."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows, self.options = rows, OracleOptions(tasks={"step": 1.0, "foretell": 1.0})
        self.writer = Writer(digit_tokenizer(PROBLEMS, 400))
        self.told = dict(each for stated in foretold(rows).values() for each in stated)

    def score(self, vectors: Any, questions: list[Question], candidates: list[str], text: Any = None) -> torch.Tensor:
        assert candidates == [YES, NO]
        said = [True] * len(questions)
        if vectors is not None:
            said = [self.told[q.about](self.rows[int(v[0, 0])]) is True for q, v in zip(questions, vectors, strict=True)]
        return torch.tensor([[float(yes), float(not yes)] for yes in said])


def test_who_knows_the_answer_is_always_right_and_without_a_thought_nobody_is_more_than_half_the_time() -> None:
    given = material(wrong=100)
    found = foretold_part(Knowing(given.rows), given, given, 0, 200)  # type: ignore[arg-type]
    assert set(found) == {"wrong", "digit"}
    for part in found.values():
        assert (part["value"], part["auc"]["real"]) == (1.0, 1.0)
        assert (part["floors"]["none"]["value"], part["from_text"]["value"]) == (0.5, 0.5)
        assert (part["auc"]["none"], part["auc"]["text_only"]) == (0.5, 0.5)
        assert part["above_text"]["value"] == 0.5
        assert part["floors"]["shuffled"]["value"] < 0.9
        assert part["floors"]["chance"]["value"] == 0.5
    assert found["wrong"]["n"] == 200


def test_a_kind_that_was_not_taught_or_does_not_occur_says_why() -> None:
    never, often = material(wrong=0), material(wrong=100)
    knowing: Any = Knowing(often.rows)
    found = foretold_part(knowing, never, never, 0, 40)["wrong"]
    assert (found["value"], found["n"]) == (None, 0)
    assert found["why"] == "it takes 20 training problems on either side, and one to be read"
    assert foretold_part(knowing, often, never, 0, 40)["wrong"]["why"] == "the problems that were read lie on one side"
    knowing.options = OracleOptions()
    assert foretold_part(knowing, often, often, 0, 40) == {}, "an oracle that was not taught to is not asked"
