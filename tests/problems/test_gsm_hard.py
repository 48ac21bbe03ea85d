import json
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest

from latent_lab.job import job
from latent_lab.problems import DataError, Problem
from latent_lab.problems.gsm8k import GSM8K
from latent_lab.problems.gsm_hard import interpreted

CODE = '''
def solution():
    """Janet's ducks lay 16 eggs. She bakes with four. What is left?"""
    eggs = 16
    baked = 4933828
    left = eggs - baked
    return left


'''
ROW = {"input": "Janet's ducks lay 16 eggs. She bakes with 4933828. What is left?", "code": CODE, "target": -4933812.0}


def load(path: Path) -> list[Problem]:
    """What ``dataset=gsm_hard`` reads of a local file."""
    loaded: list[Problem] = job("eval", ["task=problems", "dataset=gsm_hard", f"dataset.path={path}"]).config.dataset.load("test")
    return loaded


def flags(tmp_path: Path, **changes: object) -> dict[str, object]:
    """The flags of one row."""
    (tmp_path / "rows.json").write_text(json.dumps([{key: value for key, value in (ROW | changes).items() if value is not None}]))
    (problem,) = load(tmp_path / "rows.json")
    return {key: value for key, value in problem.meta.items() if key != "code"}


def program(*lines: str) -> str:
    return "def solution():\n" + "".join(f"    {line}\n" for line in lines)


# Flags


def test_a_row_says_where_to_be_careful(tmp_path: Path) -> None:
    assert flags(tmp_path) == {
        "negative": True,
        "non_integer": False,
        "code_disagrees": False,
        "operand_replaced": [["four", "4933828"]],
    }


@pytest.mark.parametrize(
    ("target", "negative", "non_integer"),
    [(7.0, False, False), (-7.0, True, False), (0.5, False, True), (-2e-06, True, True), (1e16, False, False), (0, False, False)],
)
def test_the_target_is_looked_at(target: float, negative: bool, non_integer: bool, tmp_path: Path) -> None:
    found = flags(tmp_path, target=target)
    assert (found["negative"], found["non_integer"]) == (negative, non_integer)


@pytest.mark.parametrize(
    ("lines", "target", "disagrees"),
    [
        (["return 16 - 4933828"], -4933812.0, False),
        (["return 16 - 4933828"], -4933813.0, True),
        (["return 2 / 3"], 0.6666666667, False),
        (["return 2 / 3"], 0.66667, True),
        (["return 1 / 193869"], 5.1581e-06, False),
        (["return 123456789 * 123456789"], 1.524157875019052e16, False),
        (["while True: pass"], 1.0, None),
    ],
)
def test_the_program_is_computed_again(lines: list[str], target: float, disagrees: bool | None, tmp_path: Path) -> None:
    assert flags(tmp_path, code=program(*lines), target=target)["code_disagrees"] is disagrees


@pytest.mark.parametrize(
    ("before", "after", "pairs"),
    [
        ("He has 3 cows.", "He has 3 cows.", []),
        ("He runs 3 sprints 3 times", "He runs 17938 sprints 17938 times", [["3", "17938"], ["3", "17938"]]),
        ("It costs $1,350.50, or 20% less.", "It costs $9.50, or 712% less.", [["1,350.50", "9.50"], ["20", "712"]]),
        ("He eats 1/4 of it.", "He eats 1/5364765 of it.", [["4", "5364765"]]),
        ("He buys Seven.", "He buys 8599584.", [["Seven", "8599584"]]),
        ("It costs 7", "It cost 7", []),
        ("It costs 7 and more", "It costs 8", None),
        ("", "It costs 8", None),
    ],
)
def test_numbers_that_gsm8k_did_not_have_are_named(before: str, after: str, pairs: list | None, tmp_path: Path) -> None:
    code = program(f'"""{before}"""', "return 1")
    assert flags(tmp_path, code=code, input=after)["operand_replaced"] == pairs


def test_without_its_program_a_row_has_no_flags_of_the_program(tmp_path: Path) -> None:
    found = flags(tmp_path, code=None)
    assert (found["code_disagrees"], found["operand_replaced"]) == (None, None)


def test_a_target_that_is_no_number_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        flags(tmp_path, target="many")
    said = "found 'many' (str); allowed: a number such as -12 or 0.5"
    assert str(error.value) == f"{tmp_path}/rows.json, record 1, field 'target': {said}"


# Programs


@pytest.mark.parametrize(
    ("lines", "value"),
    [
        (["return 7"], 7),
        (['"""Why?"""', "a = 2", "b = a * 3.5", "return b + a"], 9),
        (["a = 10", "a -= 3", "a *= 2", "return -a"], -14),
        (["return 7 // 2 + 7 % 4"], 6),
        (["return (1 + 2) / 4"], Fraction(3, 4)),
        (["return 0.1 + 0.2"], Fraction(3, 10)),
        (["return int(7.9) + round(2.46, 1) + max(1, 2) - min(3, 4)"], Fraction(17, 2)),
        (["return 1", "return 2"], 1),
    ],
)
def test_a_program_of_assignments_and_arithmetic_has_a_value(lines: list[str], value: Fraction) -> None:
    assert interpreted(program(*lines)) == value


@pytest.mark.parametrize(
    "line",
    [
        "return __import__('os').system('x')",
        "import os",
        "return open('x')",
        "return (lambda: 1)()",
        "return 9 ** 9 ** 9",
        "return a",
        "return 'a' * 3",
        "return True + 1",
        "return [1, 2][0]",
        "return (1).real",
        "return int('7')",
        "return int(7, base=10)",
        "return max()",
        "return max(*[1, 2])",
        "return round(7, 1 / 0)",
        "return 1 if 2 else 3",
        "return 1e999",
        "return 2j",
        "return",
        "a = b = 1",
        "a, b = 1, 2",
        "a: int = 1",
        "for a in 1, 2: return a",
        "if 1: return 1",
        "print(1)",
        "return 1 +",
        "return " + "-" * 5_000 + "1",
        "return " + "(" * 5_000 + "1" + ")" * 5_000,
        "return " + "9" * 9_000,
        "return 1" + "+1" * 4_000,
        "return 1" + "+1" * 10_000,
        "return round(1.5, 99999999)",
        "return round(1.5, 0.5)",
    ],
)
def test_anything_else_has_none(line: str) -> None:
    assert interpreted(program(line)) is None


@pytest.mark.parametrize("code", ["", "7", "def f(): return 1\ndef g(): return 2", "def f(): pass", "\x00", "class A: pass"])
def test_what_is_no_single_function_has_none(code: str) -> None:
    assert interpreted(code) is None


def test_squares_of_squares_end_at_the_digits_that_are_kept() -> None:
    assert interpreted(program("a = 10", *["a = a * a"] * 7, "return a")) == 10**128
    assert interpreted(program("a = 10", *["a = a * a"] * 100, "return a")) is None


# The published file


def test_the_published_rows(data_folder: Path) -> None:
    path = data_folder / "gsm_hard/gsmhardv2.jsonl"
    problems = load(path)
    meta = [problem.meta for problem in problems]
    assert len(problems) == 1_319
    assert sum(row["negative"] for row in meta) == 146
    assert sum(row["non_integer"] for row in meta) == 303
    targets = [json.loads(line)["target"] for line in path.read_text().splitlines()]
    assert sum("e" in repr(target) for target in targets) == 26
    # The targets are what the programs compute, in all rows whose program can be interpreted.
    assert Counter(row["code_disagrees"] for row in meta) == {False: 1_300, None: 19}
    replaced = [row["operand_replaced"] for row in meta]
    assert Counter(None if pairs is None else len(pairs) for pairs in replaced) == {
        1: 839, 0: 328, 2: 127, 3: 20, None: 2, 4: 2, 5: 1,
    }  # fmt: skip
    assert replaced[0] == [["four", "4933828"]]
    # What the publishers replaced as text also changed other numbers: $1.50 and $8.50 with the 50.
    assert replaced[16] == [["1.50", "1.3299286"], ["50", "3299286"], ["8.50", "8.3299286"]]
    assert sum(hit_another(pairs or []) for pairs in replaced) == 60


def hit_another(pairs: list[list[str]]) -> bool:
    """Whether one replacement explains another one: the number that was meant stood inside the other."""
    return any(
        old != other and now == other.replace(old, new, count) for old, new in pairs for other, now in pairs for count in (1, -1)
    )


def test_the_published_programs_quote_gsm8k_in_another_order(data_folder: Path) -> None:
    asked = [" ".join(problem.question.split()) for problem in GSM8K(path=str(data_folder / "gsm8k")).load("test")]
    codes = [problem.meta["code"] for problem in load(data_folder / "gsm_hard/gsmhardv2.jsonl")]
    quoted = [" ".join(code.split('"""')[1].split()) for code in codes]
    assert (len(asked), sum(question in set(asked) for question in quoted)) == (1_319, 1_316)
    assert sum(a == b for a, b in zip(asked, quoted, strict=True)) == 2
