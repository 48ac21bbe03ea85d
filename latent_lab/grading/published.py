"""The rule-based solver of the published GSM-Hard study (github.com/NerdyVisky/coconut), as it was, to reproduce its numbers.

It replaces every result a step wrote by the result recomputed, as *strings* inside later steps, and computes in floats. So "3"
is also replaced inside "5395976": :mod:`latent_lab.grading.repair` is what to use, and this is what to compare it with.

Differs from paper: expressions are read by our own parser, never by ``eval``; of texts no study would print (a power, more than
``MOST_STEPS`` steps, a replaced expression beyond ``LONGEST``), nothing is computed.
"""

import math
import operator
import re
from collections.abc import Callable, Iterator

from latent_lab.exact import Arithmetic, Invalid, Parser

MOST_STEPS, LONGEST = 1_000, 10_000
"""Steps of an output, and characters of an expression once results have been replaced in it."""

NUMBER = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e[-+]?[0-9]+)?"
TOKEN = re.compile(rf"{NUMBER}|[-+*/()]")
FALLBACK_TOKEN = re.compile(r"[0-9]+\.?[0-9]*|[-+*/()]")
PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}
APPLY: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda a, b: a / b if b else math.inf,
}


def tool_answer(text_output: str, answer_output: str) -> str | None:
    """The value of the last ``<<lhs=rhs>>`` as their program prints it, or the model's answer where there is no step.

    None: their program ends with an error there, or would compute what is not computed here.
    """
    answer, results = answer_output, dict[str, float]()
    for count, (lhs, rhs) in enumerate(steps(text_output), start=1):
        value = recomputed(lhs.strip(), results)
        if value is None or count > MOST_STEPS:
            return None
        results[rhs.strip()] = value
        answer = str(value)
    return answer


def is_right(gold: str, original: str, tool: str | None) -> tuple[bool, bool]:
    """Their rule for the model's answer and the tool's: truncated to integers, both may be off by one at any scale.

    One ``try`` covers both answers, so where either is no number *both* are wrong.
    """
    try:
        right, *given = (int(float(text if text is not None else "nan")) for text in (gold, original, tool))
    except (ValueError, OverflowError):
        return False, False
    return abs(right - given[0]) <= 1, abs(right - given[1]) <= 1


def steps(text: str) -> Iterator[tuple[str, str]]:
    """What their pattern ``<<([^=]+)=([^>]+)>>`` finds, in time linear in the text."""
    start, close = 0, -1
    while (equals := text.find("=", start)) >= 0:
        opened = text.find("<<", start, max(equals - 1, start))
        start = equals + 1
        if opened < 0:
            continue
        if close < start:
            close = text.find(">", start)
        if close < 0:
            return
        if close > start and text.startswith(">>", close):
            yield text[opened + 2 : equals], text[start:close]
            start = close + 2


def recomputed(lhs: str, results: dict[str, float]) -> float | None:
    """The value of a left side once every result so far has been replaced in its text, whatever it is a part of there."""
    for rhs, value in results.items():
        if len(lhs) > LONGEST:
            break
        lhs = lhs.replace(rhs, str(value))
    if len(lhs) > LONGEST:
        return None
    try:
        if TOKEN.sub("", lhs).strip():
            raise Invalid("characters outside the grammar")
        return float(Parser(TOKEN.findall(lhs), PythonNumbers()).value())
    except (ArithmeticError, ValueError):
        return by_their_fallback(lhs)


class PythonNumbers(Arithmetic):
    """Integers and floats as Python reads them, where 007 is no number and % no percent."""

    def read(self, text: str, is_negative: bool, percents: int) -> float:
        """An integer where the text has neither point nor exponent."""
        is_integer = text.isdecimal()
        if percents or (is_integer and text.startswith("0") and text.strip("0")):
            raise Invalid(f"not as Python writes it: {text}")
        value = int(text) if is_integer else float(text)
        return -value if is_negative else value


def by_their_fallback(lhs: str) -> float | None:
    """What they compute of a text that Python cannot read: operators by precedence, no signs, unknown characters left out."""
    values, operators = list[float](), list[str]()

    def apply() -> None:
        second, first = values.pop(), values.pop()
        values.append(APPLY[operators.pop()](first, second))

    tokens = FALLBACK_TOKEN.findall(lhs)
    try:
        for token in tokens:
            if token in PRECEDENCE:
                while operators and operators[-1] in PRECEDENCE and PRECEDENCE[operators[-1]] >= PRECEDENCE[token]:
                    apply()
                operators.append(token)
            elif token == "(":
                operators.append(token)
            elif token == ")":
                while operators and operators[-1] != "(":
                    apply()
                operators.pop()
            else:
                values.append(float(token))
        while operators:
            apply()
        return float(values[0] if values else tokens[0])
    except (IndexError, KeyError, ValueError, ArithmeticError):
        return None
