"""Exact arithmetic on text that nobody vouches for: a small grammar over rational numbers, bounded in every direction.

What is outside the grammar has no value; nothing is ever handed to Python's ``eval``. A power, a name or an exponent is no part
of the grammar, so neither code nor a number of a billion digits can be written in it.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

LONGEST, DEEPEST, MOST_DIGITS = 200, 20, 200
"""Characters of an expression, parentheses and signs inside each other, digits of a numerator or denominator."""

NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+"
"""A number as people write it, without its sign: ``7``, ``007``, ``1,080.50``, ``5.``, ``.5``."""
TOKEN = re.compile(rf"[ \t]*(?:(?P<number>{NUMBER})|(?P<symbol>[-+*/()%]))")
ASCII = str.maketrans({**dict.fromkeys("×∗⋅", "*"), **dict.fromkeys("÷∕", "/"), **dict.fromkeys("−–‒", "-"), "\u00a0": " "})
LETTER_X = re.compile(r"(?<=[0-9)%])( {0,3})[xX](?= {0,3}(?:\(|\.?[0-9]))")

TOO_LARGE = 10**MOST_DIGITS
Value = Any
"""What the parser computes with: integers and fractions, or whatever else adds and multiplies."""


class Invalid(ArithmeticError):
    """A text outside the grammar, or a value beyond what is kept."""


def normalised(text: str) -> str:
    """Write the signs people use for ``* / -`` (also an ``x`` between numbers) the one way; the length stays the same."""
    return LETTER_X.sub(r"\1*", text.translate(ASCII))


def evaluate(text: str, operand: Callable[[Fraction], Fraction] | None = None) -> Fraction | None:
    """Return the value of an arithmetic expression, or None where it has none.

    The grammar: numbers (thousands commas, decimals, a following ``%``), ``+ - * /``, signs and parentheses; ``x × ÷ −`` count
    as what they stand for. ``operand`` may give every number another value; it sees a number with the sign directly before it.
    None: outside the grammar, division by zero, or beyond ``LONGEST``, ``DEEPEST``, ``MOST_DIGITS``.
    """
    if len(text) > LONGEST:
        return None
    try:
        return Fraction(Parser(list(tokens(normalised(text))), ExactNumbers(operand)).value())
    except (Invalid, ZeroDivisionError):
        return None


def plain_number(text: str) -> Fraction | None:
    """Return the value of a single number with or without a sign and ``%``, or None for any other text."""
    text = normalised(text).strip(" \t")
    return evaluate(text) if re.fullmatch(rf"[-+]?(?:{NUMBER})%?", text) else None


def tokens(text: str) -> Iterator[str]:
    """The numbers and symbols of an expression, or :class:`Invalid` at the first character that is neither."""
    text, end = text.rstrip(" \t"), 0
    while end < len(text):
        found = TOKEN.match(text, end)
        if found is None:
            raise Invalid(f"no arithmetic: {text[end : end + 20]}")
        end = found.end()
        yield found["number"] or found["symbol"]


class Arithmetic(ABC):
    """How the parser reads numbers, and what it does with every result."""

    @abstractmethod
    def read(self, text: str, is_negative: bool, percents: int) -> Value:
        """The value of a written number with the sign directly before it and so many ``%`` after it."""

    def divide(self, value: Value, by: Value) -> Value:
        """A quotient, or ZeroDivisionError."""
        return value / by

    def keep(self, value: Value) -> Value:
        """The result of an operation, or :class:`Invalid` where it is too large to go on with."""
        return value


@dataclass
class ExactNumbers(Arithmetic):
    """Rational numbers of at most ``MOST_DIGITS`` digits above and below the line."""

    operand: Callable[[Fraction], Fraction] | None = None

    def read(self, text: str, is_negative: bool, percents: int) -> int | Fraction:
        """Read exactly: 0.1 is a tenth."""
        digits = text.replace(",", "").rstrip(".")
        value = int(digits) if digits.isdecimal() else Fraction(digits)  # integers stay such: they are many times faster
        value = Fraction(value, 100**percents) if percents else value
        value = -value if is_negative else value
        return self.keep(self.operand(Fraction(value)) if self.operand else value)

    def divide(self, value: int | Fraction, by: int | Fraction) -> Fraction:
        """The exact quotient."""
        return Fraction(value, by)

    def keep(self, value: int | Fraction) -> int | Fraction:
        """Refuse what has too many digits."""
        if not (-TOO_LARGE < value.numerator < TOO_LARGE and value.denominator < TOO_LARGE):
            raise Invalid("too many digits")
        return value


@dataclass
class Parser:
    """Recursive descent: sums of products of signed units, which are numbers or sums in parentheses; ``%`` divides by 100."""

    tokens: list[str]
    numbers: Arithmetic
    at: int = 0

    def value(self) -> Value:
        """The value of all tokens together."""
        value = self.sum(0)
        if self.at < len(self.tokens):
            raise Invalid(f"unexpected {self.tokens[self.at]}")
        return value

    def next(self, symbols: str) -> str:
        """Take the next token if it is one of these symbols, else the empty text."""
        token = self.tokens[self.at] if self.at < len(self.tokens) else ""
        if not token or token not in symbols:
            return ""
        self.at += 1
        return token

    def sum(self, depth: int) -> Value:
        """``product (+ product | - product)*``"""
        value = self.product(depth)
        while symbol := self.next("+-"):
            other = self.product(depth)
            value = self.numbers.keep(value + other if symbol == "+" else value - other)
        return value

    def product(self, depth: int) -> Value:
        """``unit (* unit | / unit)*``"""
        value = self.unit(depth)
        while symbol := self.next("*/"):
            other = self.unit(depth)
            value = self.numbers.keep(value * other if symbol == "*" else self.numbers.divide(value, other))
        return value

    def unit(self, depth: int, sign: str = "") -> Value:
        """``+unit | -unit | number %* | (sum) %*``"""
        if depth > DEEPEST or self.at == len(self.tokens):
            raise Invalid("too deep, or cut short")
        if symbol := self.next("+-"):
            signed = self.tokens[self.at : self.at + 1]
            is_number = bool(signed) and signed[0] not in "+-*/()%"
            value = self.unit(depth + 1, symbol)
            return -value if symbol == "-" and not is_number else value
        if self.next("("):
            value = self.sum(depth + 1)
            if not self.next(")"):
                raise Invalid("a parenthesis is left open")
            for _ in range(self.percents()):
                value = self.numbers.keep(self.numbers.divide(value, 100))
            return value
        text = self.tokens[self.at]
        if text in "*/)%":
            raise Invalid(f"unexpected {text}")
        self.at += 1
        return self.numbers.read(text, sign == "-", self.percents())

    def percents(self) -> int:
        """How many ``%`` stand here; they are taken."""
        first = self.at
        while self.next("%"):
            pass
        return self.at - first


def written(value: Fraction) -> str:
    """Write a value as the shortest decimal that is exactly it (``0.125``); where there is none, as a fraction (``2/3``)."""
    places, rest = 0, value.denominator
    for prime in (2, 5):
        power = 0
        while rest % prime == 0:
            rest, power = rest // prime, power + 1
        places = max(places, power)
    if rest != 1:
        return str(value)
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    text = f"{digits[:-places]}.{digits[-places:]}" if places else digits
    return f"-{text}" if value < 0 else text
