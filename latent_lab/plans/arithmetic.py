"""Steps by their operators: ``+ - * /``, and for competition problems also powers, roots and functions.

Differs from paper: the published pattern is searched in the whole line, so it finds ``tan`` in "distance", ``cos`` in "cost" and
a minus in every hyphen. Here a sign counts between two operands only, and a function where it is called.
"""

import re
from collections.abc import Sequence as Seq
from dataclasses import dataclass

from latent_lab.exact import normalised
from latent_lab.plans.base import ASSIGNMENT, Label, Plan
from latent_lab.problems import Problem

OPERATORS = {
    "basic": ("+", "-", "*", "/"),
    "competition": ("+", "-", "*", "/", "^", "!", "sqrt", "frac", "cos", "sin", "tan", "log", "ln", "times"),
}
"""The kinds of the two published lists."""
SEVERAL = ("repeat", "unique", "first", "collapsed")

ANNOTATION = re.compile(r"<<([^<>\n]*)>>")
FUNCTIONS = "sqrt|cos|sin|tan|log|ln"
AFTER = rf"(?=[ $]*[-+]?[ $]*(?:[0-9.(\[{{\\]|[A-Za-z](?![A-Za-z])|(?:{FUNCTIONS})\())"
"""Where an operand may begin: it is a number, a bracket, a function, or a letter that stands alone."""
OPERATOR = re.compile(
    rf"\\(?:d|t)?(?P<command>frac|times|cdot|div|{FUNCTIONS})(?![A-Za-z])"
    rf"|(?<![A-Za-z\\])(?P<called>{FUNCTIONS})(?=\()"
    rf"|(?:(?<=[0-9)\]}}%!])|(?<=(?<![A-Za-z])[A-Za-z]))(?P<gap>[ $]*)(?P<sign>[-+*/^]){AFTER}"
    r"|(?<=[0-9)A-Za-z])(?P<factorial>!)(?= ?[-+*/^=)\]}])"
)
SAME = {"cdot": "times", "div": "/"}


@dataclass
class Arithmetic(Plan):
    """The operators of a step: of its ``<<...>>`` where it has some, else of whatever expression it holds."""

    operators: str = "basic"
    """``basic``: the four of word problems; ``competition``: the fourteen published for MATH and AQuA."""
    several: str = "repeat"
    """Of several operators, announce each as often as it occurs (``repeat``, published), each once (``unique``), the ``first``
    alone, or all as one kind (``collapsed``). The last two make every announcement equally long."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.operators not in OPERATORS:
            raise ValueError(f"operators={self.operators}: allowed are {', '.join(OPERATORS)}")
        if self.several not in SEVERAL:
            raise ValueError(f"several={self.several}: allowed are {', '.join(SEVERAL)}")

    def learn(self, problems: Seq[Problem]) -> None:
        """See :class:`Plan`: which operators occur together, where these are to be one kind."""
        if self.several == "collapsed":
            self.state["together"] = sorted({joined(found) for p in problems for s in p.steps if (found := self._found(s))})

    def own_kinds(self) -> tuple[str, ...]:
        """See :class:`Plan`."""
        single = OPERATORS[self.operators]
        return (*single, *(name for name in self.state.get("together", ()) if name not in single))

    def own_labels(self, problems: Seq[Problem]) -> list[tuple[Label, ...]]:
        """See :class:`Plan`."""
        return [tuple(self.label(step) for step in p.steps) for p in problems]

    def label(self, step: str) -> Label:
        """The kinds of one step."""
        found = self._found(step)
        if not found:
            return (ASSIGNMENT,)
        if self.several == "unique":
            return tuple(dict.fromkeys(found))
        if self.several == "collapsed" and (name := joined(found)) in self.state["together"]:
            return (name,)
        return tuple(found if self.several == "repeat" else found[:1])  # operators never seen together go by their first

    def _found(self, step: str) -> list[str]:
        return [name for name in operators(step) if name in OPERATORS[self.operators]]


def operators(step: str) -> list[str]:
    """The operators of a step in their order: inside ``<<...>>``, or anywhere between operands where there is no such bracket.

    What follows an equals sign in brackets is a result, and the sign of a number is no operator.
    """
    annotated = ANNOTATION.findall(step)
    texts = [text.rpartition("=")[0] or text for text in annotated] if annotated else [step]
    return [name for text in texts for match in OPERATOR.finditer(normalised(text)) if (name := named(match))]


def named(match: re.Match[str]) -> str:
    """The kind an operator found is of."""
    name = match["command"] or match["called"] or match["sign"] or match["factorial"]
    return SAME.get(name, name)


def joined(found: Seq[str]) -> str:
    """One name for operators that occur together, whatever their order and number."""
    return "".join(sorted(set(found), key=OPERATORS["competition"].index))
