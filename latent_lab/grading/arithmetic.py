"""The arithmetic a model wrote: the steps of its chain with their places in the text, and whether a result is right."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from latent_lab.exact import LONGEST, NUMBER, evaluate, normalised, plain_number, written

__all__ = ["WrittenStep", "evaluate", "is_right", "numbers_in", "parse_steps", "printed_unit", "written"]

ANNOTATED = re.compile(r"<<([^<>\n]*)>>")
PLAIN_TOKEN = re.compile(rf"(?P<number>{NUMBER})|(?P<symbol>[-+*/()%])|(?P<space>[ \t$]+)|(?P<other>.)", re.DOTALL)
PLAIN_RESULT = re.compile(rf"[ \t]*(?P<rhs>[-+]?\$?(?:{NUMBER})%?)(?![ \t]*[-+*/][ \t]*[-+$(]*[.0-9])")
BULLET = re.compile(r"[ \t]*[-+*][ \t]+")
OPERATORS, DIGITS = frozenset("+-*/"), frozenset(".0123456789")
NUMBERS = re.compile(rf"(?:{NUMBER})%?")
SINGLE = re.compile(rf"[-+]?(?:{NUMBER})%?")


@dataclass(frozen=True, slots=True)
class WrittenStep:
    """An equation in a text: ``lhs=rhs``, both sides without the white space around them."""

    lhs: str
    rhs: str
    start: int
    """Where the step begins in the text, brackets included, in characters."""
    end: int
    """Where what follows it begins."""
    is_annotated: bool
    """Whether it is written ``<<lhs=rhs>>``; else it is an equation in running text."""


def parse_steps(text: str) -> list[WrittenStep]:
    """Find every ``<<lhs=rhs>>``, and in lines that have none the plain equations ``a op b = c``, in the order of the text.

    An annotated step is kept whatever stands in it: what has no value is an invalid step, not an absent one. A plain equation
    has two or more numbers with operators between them before its ``=``, and one number behind it; ``$`` is passed over.
    The time is linear in the text.
    """
    steps, start = list[WrittenStep](), 0
    for line in text.splitlines(keepends=True):
        if "=" in line:
            steps += annotated(line, start) if "<<" in line else plain(normalised(line), start)
        start += len(line)
    return steps


def annotated(line: str, offset: int) -> Iterator[WrittenStep]:
    """The ``<<lhs=rhs>>`` of a line that begins at ``offset``."""
    for found in ANNOTATED.finditer(line):
        lhs, equals, rhs = found[1].partition("=")
        if equals:
            yield WrittenStep(lhs.strip(), rhs.strip(), offset + found.start(), offset + found.end(), True)


def plain(line: str, offset: int) -> Iterator[WrittenStep]:
    """The plain equations of a line that begins at ``offset``, its signs written the one way."""
    after = 0
    for equals in (found.start() for found in re.finditer("=", line)):
        before = max(after, equals - LONGEST)
        after = equals + 1
        if (result := PLAIN_RESULT.match(line, after, after + LONGEST)) is None:
            continue
        first = expression_start(line[before:equals])
        if first is None or (first == 0 and before == equals - LONGEST):
            continue
        lhs = line[before + first : equals].replace("$", " ").strip()
        if re.search(r"[0-9.)%][ \t]*[-+*/]", lhs) and evaluate(lhs) is not None:
            rhs = result["rhs"].rstrip(".")
            yield WrittenStep(lhs, rhs.replace("$", ""), offset + before + first, offset + result.start("rhs") + len(rhs), False)


def expression_start(text: str) -> int | None:
    """Where the expression that a text ends with begins; None where more belongs to it than can be read.

    It begins behind a word, and where another number or a closing parenthesis stands directly before a number; a parenthesis
    never closed and a list's bullet (``- 4 + 5``) are no part of it. What cannot be read: an operator behind a word
    (``apples * 3``), a number before a parenthesis (``2(3+4)``).
    """
    first, open_, behind = len(text), 0, ""
    for token in reversed([match for match in PLAIN_TOKEN.finditer(text) if match.lastgroup != "space"]):
        is_end = token.lastgroup == "number" or token[0] in ")%"
        if token.lastgroup == "other" or (is_end and behind[:1] in DIGITS):
            break
        if is_end and behind == "(" and not token[0].endswith("."):
            return None
        open_ += (token[0] == ")") - (token[0] == "(")
        if open_ < 0:
            break
        behind = token[0]
        if behind not in OPERATORS:
            first = token.start()
    before = text[:first]
    if re.search(r"(?:^|[ \t(])[-+]$", before):
        return first - 1
    return None if re.search(r"[-+*/][ \t$]*$", before) and not BULLET.fullmatch(before) else first


def numbers_in(text: str) -> set[Fraction]:
    """Every number a text holds, without signs; of a percentage both 60 and 0.6."""
    found = {match[0] for match in NUMBERS.finditer(text)}
    values = map(plain_number, found | {each.rstrip("%") for each in found})
    return {value for value in values if value is not None}


def printed_unit(rhs: str) -> Fraction:
    """What one more in the last digit of a written result would add: 0.01 for ``3.33``; 0 for an expression such as ``1/2``."""
    if not SINGLE.fullmatch(rhs):
        return Fraction(0)
    decimals = rhs.rstrip("%").partition(".")[2]
    return Fraction(1, 10 ** len(decimals) * 100 ** rhs.count("%"))


def is_right(value: Fraction, given: Fraction, unit: Fraction) -> bool:
    """Say whether a result is a value at the precision it is printed with: 0.33 and 0.34 stand for all at most 0.005 away."""
    return abs(value - given) <= unit / 2
