"""GSM-Hard (PAL, arXiv 2211.10435): the test problems of GSM8K with a number made larger, and what is doubtful about each row.

A row has a Python program, whose docstring is the question as GSM8K asks it. The target is what the program computes, which need
not be a sensible answer to the question with its new number; the flags in ``meta`` say where to be careful.
"""

import ast
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from latent_lab.exact import MOST_DIGITS, NUMBER, TOO_LARGE, Invalid, plain_number
from latent_lab.problems import Problem
from latent_lab.problems.files import Row, mapping, wrong
from latent_lab.problems.hub import Hub

LONGEST_PROGRAM = 10_000
"""Characters of a program that is interpreted; the longest published one has 1,397."""
ROUNDING, NOISE = Fraction(1, 2 * 10**10), Fraction(1, 10**9)
"""How far a program's exact value may be from its target: published ones are rounded to ten decimals, from floats."""
OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.FloorDiv: lambda a, b: Fraction(a // b),
    ast.Mod: lambda a, b: a % b,
}
FUNCTIONS: dict[str, Callable[..., Fraction]] = {
    "int": lambda a: Fraction(math.trunc(a)),
    "round": lambda a, places=Fraction(0): rounded(a, places),
    "max": lambda *values: max(values),
    "min": lambda *values: min(values),
}


@dataclass
class GSMHard(Hub):
    """GSM-Hard's published rows; to each problem's ``meta`` these flags are added.

    ``negative``, ``non_integer``: what the target is. ``code_disagrees``: whether the program computes something else than the
    target; None where it cannot be interpreted. ``operand_replaced``: for each number that differs from GSM8K's question, what
    stood there and what stands there now, as in ``[["four", "4933828"]]``; None where the program does not quote that question.
    """

    def problem(self, row: Row, stem: str) -> Problem:
        """Turn one row into a Problem with its flags; a target that is no number raises :class:`DataError`."""
        made = super().problem(row, stem)
        target, code = plain_number(made.answer), mapping(row.record, row.where).get("code")
        if target is None:
            raise wrong(made.answer, self.answer, row.where, "a number such as -12 or 0.5")
        flags: dict[str, Any] = {"negative": target < 0, "non_integer": target.denominator > 1}
        flags |= {"code_disagrees": None, "operand_replaced": None}
        if isinstance(code, str):
            flags |= {"code_disagrees": disagrees(code, target), "operand_replaced": replaced(original(code), made.question)}
        return replace(made, meta=made.meta | flags)


def disagrees(code: str, target: Fraction) -> bool | None:
    """Whether a program computes something else than its target, rounding aside; None where it cannot be interpreted."""
    value = interpreted(code)
    return None if value is None else abs(value - target) > ROUNDING + NOISE * abs(target)


def original(code: str) -> str:
    """The docstring of a program, in which GSM-Hard keeps the question of GSM8K; empty where there is none."""
    quoted = re.search(r'"""(.*?)"""', code, re.DOTALL)
    return quoted[1] if quoted else ""


def replaced(before: str, after: str) -> list[list[str]] | None:
    """The words of a question that became other numbers, each with the number; None unless the questions match word by word."""
    old, new = before.split(), after.split()
    if not old or len(old) != len(new):
        return None
    return [pair for a, b in zip(old, new, strict=True) if a != b for pair in replaced_in(a, b)]


def replaced_in(old: str, new: str) -> list[list[str]]:
    """The numbers of a word that took the place of others, each after what stood there: a number, or a word such as ``four``."""
    before, after = ([each.rstrip(".") for each in re.findall(NUMBER, word)] for word in (old, new))
    if len(before) == len(after):
        return [[a, b] for a, b in zip(before, after, strict=True) if a != b]
    return [[old.strip("$.,;:!?"), each] for each in after]


def interpreted(code: str) -> Fraction | None:
    """The value that a program of assignments and arithmetic returns, computed exactly; None where it is anything else.

    A whitelist over Python's syntax tree, one statement after another: numbers, names assigned before, ``+ - * / // %``,
    ``int``, ``round``, ``max`` and ``min``. Loops, conditions and everything else are not interpreted; nothing is executed.
    """
    if len(code) > LONGEST_PROGRAM:
        return None
    try:
        body = ast.parse(code.strip()).body
        function = body[0] if body else None
        return returned(function.body) if len(body) == 1 and isinstance(function, ast.FunctionDef) else None
    except (Invalid, SyntaxError, ArithmeticError, ValueError, TypeError, RecursionError, MemoryError):
        return None


def rounded(value: Fraction, places: Fraction) -> Fraction:
    """A value to so many decimals, a tie to the even digit; :class:`Invalid` for places no number here has."""
    if places.denominator > 1 or abs(places) > MOST_DIGITS:
        raise Invalid("no number of decimals")
    return Fraction(round(value, int(places)))


def returned(statements: list[ast.stmt]) -> Fraction:
    """Do assignments in their order, up to the value returned; :class:`Invalid` for any other statement."""
    names: dict[str, Fraction] = {}
    for statement in statements:
        match statement:
            case ast.Expr(value=ast.Constant(value=str())):
                continue
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                names[name] = computed(value, names)
            case ast.AugAssign(target=ast.Name(id=name), op=op, value=value):
                names[name] = computed(ast.BinOp(ast.Name(name), op, value), names)
            case ast.Return(value=ast.expr() as value):
                return computed(value, names)
            case _:
                raise Invalid(f"a {type(statement).__name__} is not interpreted")
    raise Invalid("nothing is returned")


def computed(node: ast.expr, names: dict[str, Fraction]) -> Fraction:
    """The value of an expression, or :class:`Invalid`."""
    match node:
        case ast.Constant(value=int() | float() as given) if not isinstance(given, bool) and math.isfinite(given):
            value = Fraction(repr(given))
        case ast.Name(id=name) if name in names:
            value = names[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            value = -computed(operand, names)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            value = OPERATORS[type(op)](computed(left, names), computed(right, names))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
            value = FUNCTIONS[name](*(computed(each, names) for each in args))
        case _:
            raise Invalid(f"a {type(node).__name__} is not interpreted")
    if not (-TOO_LARGE < value.numerator < TOO_LARGE and value.denominator < TOO_LARGE):
        raise Invalid("too many digits")
    return value
