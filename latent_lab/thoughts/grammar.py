"""What a step says, field by field: the labels that readers of thoughts are graded against.

A grammar turns the text of a step into named values and back. Text that it cannot read has no labels; nothing is guessed.
"""

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from latent_lab.problems import Problem

MOST_VALUES = 64
"""An open field keeps so many of its most frequent training values; any other value has no label."""


@dataclass(frozen=True)
class Grammar(ABC):
    """The steps of one family of problems."""

    name: str
    values: dict[str, tuple[str, ...]]
    """For each field the values a reader chooses from, in a fixed order."""

    @property
    def primary(self) -> str:
        """The field that claims rest on: what a step adds to the answer."""
        return next(iter(self.values), "step")

    def shown(self, answer: str, num_steps: int) -> dict[int, str]:
        """What an answer shows of its steps: for each step's number the primary field's value; empty where it is no answer."""
        return {}

    @abstractmethod
    def parse(self, step: str) -> dict[str, str] | None:
        """The fields of a step; None where it is no step of this grammar. Fields that a step does not have are left out."""

    def render(self, fields: dict[str, str]) -> str:
        """The text that :meth:`parse` reads these fields from; without a form of its own, the primary field's value."""
        return fields.get(self.primary, "")

    def is_counted(self, step: str) -> bool:
        """Whether a step counts for the strict score: not for steps that a constant guess gets right too often."""
        return True

    def is_consistent(self, step: str) -> bool | None:
        """Whether what the step claims is true by itself; None where that has no meaning."""
        return None

    def labels(self, steps: Sequence[str]) -> list[dict[str, str]]:
        """For each step its fields, without values that are not among ``values``."""
        return [
            {field: value for field, value in (self.parse(step) or {}).items() if value in self._known.get(field, ())}
            for step in steps
        ]

    @cached_property
    def _known(self) -> dict[str, frozenset[str]]:
        return {field: frozenset(values) for field, values in self.values.items()}


COLUMN = re.compile(r"([0-9])\+([0-9])(?:\+(1))?=([0-9]{1,2}) write ([0-9])(?: carry (1))?")
LAST_CARRY = "carry 1 write 1"
DIGITS = tuple("0123456789")


class AdditionGrammar(Grammar):
    """Columns of a sum: ``8+4+1=13 write 3 carry 1``; and the carry left at the end, which a constant guess gets right."""

    @property
    def primary(self) -> str:
        """See :class:`Grammar`: the digit to write."""
        return "write"

    def render(self, fields: dict[str, str]) -> str:
        """See :class:`Grammar`; the fields of a column."""
        carry_in = "+1" if fields["carry_in"] == "1" else ""
        carry_out = " carry 1" if fields["carry_out"] == "1" else ""
        return f"{fields['a']}+{fields['b']}{carry_in}={fields['total']} write {fields['write']}{carry_out}"

    def shown(self, answer: str, num_steps: int) -> dict[int, str]:
        """See :class:`Grammar`: step k writes the k-th digit from the right."""
        is_whole = answer.isascii() and answer.isdecimal() and len(answer) == num_steps
        return dict(enumerate(reversed(answer))) if is_whole else {}

    def parse(self, step: str) -> dict[str, str] | None:
        """See :class:`Grammar`; the last carry has no fields but what it writes."""
        if step == LAST_CARRY:
            return {"write": "1"}
        found = COLUMN.fullmatch(step)
        if found is None:
            return None
        a, b, carry_in, total, write, carry_out = found.groups()
        return {"a": a, "b": b, "carry_in": carry_in or "0", "total": total, "write": write, "carry_out": carry_out or "0"}

    def is_counted(self, step: str) -> bool:
        """See :class:`Grammar`."""
        return step != LAST_CARRY

    def is_consistent(self, step: str) -> bool | None:
        """See :class:`Grammar`: sum, digit and carry agree."""
        if step == LAST_CARRY:
            return True
        said = self.parse(step)
        if said is None:
            return False
        total = int(said["a"]) + int(said["b"]) + int(said["carry_in"])
        return (str(total), str(total % 10), str(total // 10)) == (said["total"], said["write"], said["carry_out"])


EQUATION = re.compile(r"(?:<<)?\s*([^=<>]+?)\s*=\s*(-?[0-9][0-9,]*(?:\.[0-9]+)?)\s*(?:>>)?.*")
OPERATOR = re.compile(r"(?<=[0-9)%.])\s*([-+*/x×÷])")


class LastIsAnswer(Grammar, ABC):
    """Steps whose last one says the answer."""

    def shown(self, answer: str, num_steps: int) -> dict[int, str]:
        """See :class:`Grammar`."""
        return {num_steps - 1: answer.replace(",", "")} if num_steps else {}


class EquationGrammar(LastIsAnswer):
    """GSM8K's steps, ``<<48/2=24>>``: the result, the first operand and the operator."""

    @property
    def primary(self) -> str:
        """See :class:`Grammar`: the result."""
        return "result"

    def parse(self, step: str) -> dict[str, str] | None:
        """See :class:`Grammar`."""
        found = EQUATION.search(step.partition("<<")[2] or step)
        if found is None:
            return None
        left, result = found[1], found[2].replace(",", "")
        operator = OPERATOR.search(left)
        fields = {"result": result}
        if operator:
            fields |= {"operator": operator[1], "first": left[: operator.start()].strip(" ($").replace(",", "")}
        return fields


class NodeGrammar(LastIsAnswer):
    """Graphs in symbols: a step is the node reached."""

    def parse(self, step: str) -> dict[str, str] | None:
        """See :class:`Grammar`."""
        return {"node": step} if step.isdecimal() else None


class TextGrammar(Grammar):
    """Any other steps: the whole text is the one field."""

    def parse(self, step: str) -> dict[str, str] | None:
        """See :class:`Grammar`."""
        return {"step": step}


CARRY = ("0", "1")
ADDITION = AdditionGrammar(
    "addition",
    {"a": DIGITS, "b": DIGITS, "carry_in": CARRY, "total": tuple(map(str, range(20))), "write": DIGITS, "carry_out": CARRY},
)


def grammar_of(problems: Sequence[Problem]) -> Grammar:
    """The grammar that reads all (equations: nine in ten) steps of training problems; their open fields take these values."""
    steps = [step for problem in problems for step in problem.steps]
    if steps and all(ADDITION.parse(step) for step in steps):
        return ADDITION
    for kind, name, share in ((NodeGrammar, "nodes", 1.0), (EquationGrammar, "equations", 0.9), (TextGrammar, "text", 0.0)):
        read = [kind(name, {}).parse(step) for step in steps]
        if steps and sum(fields is not None for fields in read) >= share * len(steps):
            return kind(name, frequent(fields for fields in read if fields is not None))
    return TextGrammar("text", {"step": ()})


def frequent(read: Iterable[dict[str, str]]) -> dict[str, tuple[str, ...]]:
    """The most frequent values of each field, sorted; a field with a single value tells nothing and is left out."""
    counts: dict[str, Counter[str]] = {}
    for fields in read:
        for field, value in fields.items():
            counts.setdefault(field, Counter())[value] += 1
    kept = {field: sorted(value for value, _ in count.most_common(MOST_VALUES)) for field, count in counts.items()}
    return {field: tuple(values) for field, values in kept.items() if len(values) > 1}
