"""What a generated text answers: named rules that find the answer in it, and where. Functions of text alone.

What a model wrote is bounded before it is read, and every rule reads it in one pass: no text takes long.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from latent_lab.sequences import ANSWER_NODE, ANSWER_PREFIX

MARKER = ANSWER_PREFIX.strip()
MOST_READ = 1_000_000
"""Characters of a text, its last ones, in which an answer is looked for."""

Span = tuple[int, int]
"""Where a piece of text begins and ends: ``text[begin:end]``."""


@dataclass(frozen=True, slots=True)
class Extracted:
    """An answer found in generated text."""

    answer: str
    extractor: str
    """Name of the rule that found it, a key of ``EXTRACTORS``."""
    span: Span
    """Where it stands in the text."""


def extract(text: str, extractors: Sequence[str] = ("marker",)) -> Extracted | None:
    """Find the answer by the first named rule that applies; None is a failure of form, counted apart from wrong answers."""
    skipped = max(0, len(text) - MOST_READ)
    read = text[skipped:]
    for name in extractors:
        if span := EXTRACTORS[name](read):
            begin, end = span
            return Extracted(read[begin:end], name, (begin + skipped, end + skipped))
    return None


def check_extractors(extractors: Sequence[str]) -> None:
    """Raise ValueError unless all are names of rules, each named once."""
    names = ", ".join(EXTRACTORS)
    if bad := [name for name in extractors if name not in EXTRACTORS]:
        raise ValueError(f"extractors={bad[0]}: allowed are {names}, in the order to try them")
    if len(set(extractors)) < len(extractors):
        raise ValueError(f"extractors={', '.join(extractors)}: allowed is each rule once")


def after_marker(text: str) -> Span | None:
    """The rest of the line after the last ``###``; None where the marker or an answer is missing."""
    return _rest_of_line(text, text.rfind(MARKER) + len(MARKER)) if MARKER in text else None


def after_hashes(text: str) -> Span | None:
    """The rest of the line after the last ``####`` (GSM8K) that anything follows; three hashes are a heading, not an answer."""
    return _last(_rest_of_line(text, end) for end in _ends(HASHES, text))


def in_box(text: str) -> Span | None:
    r"""What the last ``\boxed{...}`` or ``\fbox{...}`` holds, at any depth of braces, or the word after ``\boxed`` and a blank.

    A box that is empty or was never closed is no answer and hides none: the one before it counts.
    """
    found: list[Span] = []
    opened: list[int | None] = []  # where the content of each open brace begins; None: it is no box
    for match in BRACES.finditer(text):
        if match[0] == "}":
            if opened and (begin := opened.pop()) is not None:
                found.append((begin, match.start()))
        elif match["box"]:
            opened.append(match.end())
        elif match["word"]:
            found.append(match.span("word"))
        elif match[0] == "{":
            opened.append(None)
    return max((span for begin, end in found if (span := _stripped(text, begin, end))), default=None)


def after_statement(text: str) -> Span | None:
    """What the last "the answer is ..." or "answer: ..." says, up to the end of its sentence or the reason given for it.

    The blanks, stars, colons and quotes around an answer are no part of it, nor are a pair of ``$`` or one of brackets around a
    single letter.
    """
    return _last(_stated(text, end) for end in _ends(STATEMENT, text))


def last_number(text: str) -> Span | None:
    """The last number of a text, whatever it counts: a guess, which must be asked for by name.

    A hyphen is a sign only where no number or letter stands before it: ``5-3`` ends with ``3``.
    """
    span = None
    for match in ANY_NUMBER.finditer(text):
        span = match.span()
    return span


def node(text: str) -> Span | None:
    """What follows the last ``[A]`` (all of a text without it) if it is one word: the node a graph problem asks for."""
    begin = text.rfind(ANSWER_NODE) + len(ANSWER_NODE) if ANSWER_NODE in text else 0
    span = _stripped(text, begin, len(text))
    return span if span and not re.search(r"\s", text[slice(*span)]) else None


HASHES = re.compile("#{4,}")
BRACES = re.compile(r"\\(?:boxed|fbox)(?:\s{0,9}(?P<box>\{)|\s{1,9}(?P<word>[^\s{}\\$]+?)(?=[.,;:!?]?(?:[\s{}\\$]|$)))|\\.|[{}]")
STATEMENT = re.compile(
    r"\b(?:the\s{1,3})?(?:(?:final|correct|right)\s{1,3})?answer(?:\s{1,3}is\b\s{0,3}:?|[\s*]{0,3}:)[\s*_:\"'`]{0,9}", re.I
)
END_OF_STATEMENT = re.compile(r"\n|;|[.!?](?=\s|$|[*\"'`_])|,?\s(?:because|since|so|which|but)\b", re.I)
ANY_NUMBER = re.compile(
    r"(?:(?<![\w)])[-+\u2212])?\$?(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?(?:/[0-9]+)?%?"
    r"|(?<![0-9])\.[0-9]+"
)

EXTRACTORS: dict[str, Callable[[str], Span | None]] = {
    "marker": after_marker,
    "hashes": after_hashes,
    "boxed": in_box,
    "the_answer_is": after_statement,
    "last_number": last_number,
    "node": node,
}
"""Rules by the name that is reported."""


def _ends(pattern: re.Pattern[str], text: str) -> list[int]:
    """Where matches of a pattern end, the last first."""
    return [match.end() for match in pattern.finditer(text)][::-1]


def _last(spans: Iterable[Span | None]) -> Span | None:
    """The first span there is; for spans that come last first."""
    return next((span for span in spans if span), None)


def _rest_of_line(text: str, begin: int) -> Span | None:
    end = text.find("\n", begin)
    return _stripped(text, begin, len(text) if end < 0 else end)


def _stripped(text: str, begin: int, end: int, beside: str = "") -> Span | None:
    """A span without the blanks, and the characters of ``beside``, at its ends; None where nothing is left."""
    while begin < end and (text[begin].isspace() or text[begin] in beside):
        begin += 1
    while end > begin and (text[end - 1].isspace() or text[end - 1] in beside):
        end -= 1
    return (begin, end) if begin < end else None


def _stated(text: str, begin: int) -> Span | None:
    """The answer in a sentence that goes on at ``begin``."""
    stop = END_OF_STATEMENT.search(text, begin)
    span = _stripped(text, begin, stop.start() if stop else len(text), "*_:,\"'`")
    if span is None:
        return None
    begin, end = span
    is_formula = end - begin > 2 and text[begin] == text[end - 1] == "$"
    is_letter = end - begin == 3 and text[begin] == "(" and text[begin + 1].isalpha() and text[end - 1] == ")"
    return (begin + 1, end - 1) if is_formula or is_letter else span
