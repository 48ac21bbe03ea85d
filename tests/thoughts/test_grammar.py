"""Grammars read steps field by field, and refuse what they cannot read."""

import pytest

from latent_lab.problems import Problem
from latent_lab.thoughts.grammar import ADDITION, EquationGrammar, grammar_of


@pytest.mark.parametrize(
    ("step", "fields", "is_consistent"),
    [
        ("5+9=14 write 4 carry 1",
         {"a": "5", "b": "9", "carry_in": "0", "total": "14", "write": "4", "carry_out": "1"}, True),
        ("2+5+1=8 write 8", {"a": "2", "b": "5", "carry_in": "1", "total": "8", "write": "8", "carry_out": "0"}, True),
        ("carry 1 write 1", {"write": "1"}, True),
        ("2+5+1=9 write 9", {"a": "2", "b": "5", "carry_in": "1", "total": "9", "write": "9", "carry_out": "0"}, False),
        ("2+5=7", None, False),
        ("5+9=14 write 4 carry 1 ", None, False),
    ],
)  # fmt: skip
def test_columns_of_a_sum(step: str, fields: dict[str, str] | None, is_consistent: bool) -> None:
    assert ADDITION.parse(step) == fields
    assert ADDITION.is_consistent(step) is is_consistent
    assert ADDITION.is_counted(step) is (step != "carry 1 write 1")
    if fields and "a" in fields:
        assert ADDITION.render(fields) == step


def problem(*steps: str) -> Problem:
    return Problem("p", "q", steps, "1")


def test_the_grammar_is_found_from_training_problems() -> None:
    assert grammar_of([problem("1+2=3 write 3", "carry 1 write 1")]) is ADDITION
    nodes = grammar_of([problem("3", "12"), problem("4")])
    assert (nodes.name, nodes.values) == ("nodes", {"node": ("12", "3", "4")})
    equations = grammar_of([problem("<<48/2=24>>", "<<48+24=72>>")])
    assert (equations.name, equations.values) == ("equations", {"operator": ("+", "/"), "result": ("24", "72")})
    text = grammar_of([problem("Wren is a fompus."), problem("Every fompus is a gwompus.")])
    assert text.name == "text"
    assert grammar_of([problem()]).values == {"step": ()}


@pytest.mark.parametrize(
    ("step", "fields"),
    [
        ("<<48/2=24>>", {"first": "48", "operator": "/", "result": "24"}),
        ("She sold <<1,200*0.5=600>>600", {"first": "1200", "operator": "*", "result": "600"}),
        ("<<-3+5=2>>", {"first": "-3", "operator": "+", "result": "2"}),
        ("no equation", None),
    ],
)
def test_equations(step: str, fields: dict[str, str] | None) -> None:
    assert EquationGrammar("equations", {}).parse(step) == fields


def test_values_that_no_reader_may_choose_have_no_label() -> None:
    grammar = grammar_of([problem("<<48/2=24>>"), problem("<<48+24=72>>")])
    assert grammar.labels(["<<1/2=24>>", "nothing"]) == [{"operator": "/", "result": "24"}, {}]


def test_what_an_answer_shows_of_its_steps() -> None:
    assert ADDITION.primary == "write"
    assert ADDITION.shown("984", 3) == {0: "4", 1: "8", 2: "9"}
    assert ADDITION.shown("98", 3) == {}
    assert ADDITION.shown("9x4", 3) == {}
    equations = grammar_of([problem("<<48/2=24>>", "<<48+24=72>>")])
    assert (equations.primary, equations.shown("1,072", 2)) == ("result", {1: "1072"})
    nodes = grammar_of([problem("3", "12")])
    assert (nodes.primary, nodes.shown("12", 2)) == ("node", {1: "12"})
    assert grammar_of([problem("Wren is a fompus.", "Every fompus is a gwompus.")]).shown("True", 2) == {}
