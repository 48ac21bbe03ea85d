"""The arithmetic tool: a model's chain computed again exactly, so that planning and execution can be told apart.

A number that an earlier step wrote as its result is replaced, where a later step uses it, by what that step really comes to. It
is replaced as a number with its sign, never as a piece of text: a 3 is no part of 13. It corrects the solver of the published
GSM-Hard study, which is in :mod:`latent_lab.grading.published`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from latent_lab.grading.arithmetic import WrittenStep, evaluate, is_right, numbers_in, parse_steps, printed_unit, written
from latent_lab.grading.numbers import number

LINKS = ("final", "last")
VERDICTS = ("ok", "wrong", "invalid")
KINDS = ("none", "execution", "planning", "unclear")


@dataclass(frozen=True, slots=True)
class Checked:
    """A step and what became of it."""

    step: WrittenStep
    verdict: str
    """``ok``: the left side as it was written comes to the right one, at its printed precision; ``wrong``: it does not;
    ``invalid``: a side has no value, or the left one has none with earlier results repaired."""
    given: Fraction | None
    """The right side."""
    value: Fraction | None
    """What the left side comes to with the results of earlier steps repaired."""


@dataclass(frozen=True, slots=True)
class Repaired:
    """What the tool makes of an output."""

    answer: str
    """The repaired answer as :func:`latent_lab.exact.written` writes it, followed by ``%`` where the step's result is; or the
    model's own where no step could be used."""
    tool_used: bool
    """Whether the answer is a step's."""
    steps: tuple[Checked, ...]
    num_ambiguous_links: int
    """Numbers left as they are although a step wrote the same one with a wrong value, because they also stand in the question."""

    @property
    def verdicts(self) -> dict[str, int]:
        """How many steps have each verdict."""
        counts = Counter(checked.verdict for checked in self.steps)
        return {verdict: counts[verdict] for verdict in VERDICTS}

    @property
    def is_arithmetic_right(self) -> bool:
        """Whether there are steps, all of them ok."""
        return bool(self.steps) and all(checked.verdict == "ok" for checked in self.steps)


def repair(output: str, answer: str | None, *, question: str = "", link: str = "final") -> Repaired:
    """Compute a chain again.

    ``output`` is what the model generated, without the question, and ``answer`` the answer read from it. A number that stands in
    ``question`` is not taken for an earlier step's result; without a question every equal number is. ``link`` says whose value
    is the repaired answer: ``final``, the last step that wrote the model's answer, else the last step; or ``last``, always that.
    """
    if link not in LINKS:
        raise ValueError(f"link={link}: allowed are {', '.join(LINKS)}")
    results = Results(numbers_in(question))
    steps = tuple(check(step, results) for step in parse_steps(output))
    step = linked(steps, number(answer, percent=True) if answer and link == "final" else None)
    repaired = as_the_step_writes(step) if step else None
    return Repaired(
        answer=(answer or "") if repaired is None else repaired,
        tool_used=repaired is not None,
        steps=steps,
        num_ambiguous_links=results.num_ambiguous,
    )


def error_kind(is_answer_right: bool, is_repaired_right: bool, is_arithmetic_right: bool) -> str:
    """Say what an answer failed by, without a judge: ``none``, ``execution``, ``planning`` or ``unclear``.

    Execution: with its arithmetic repaired, the chain leads to the right answer. Planning: the arithmetic is right throughout.
    """
    if is_answer_right:
        return "none"
    if is_repaired_right:
        return "execution"
    return "planning" if is_arithmetic_right else "unclear"


@dataclass
class Results:
    """What earlier steps wrote, and what it should have been; the latest step that wrote a number counts."""

    asked: set[Fraction]
    """Numbers of the question."""
    values: dict[Fraction, Fraction] = field(default_factory=dict)
    num_ambiguous: int = 0
    num_replaced: int = 0

    def define(self, given: Fraction, value: Fraction | None) -> None:
        """A step wrote ``given`` for what is ``value``, or for something without a value: then the number stands for itself."""
        self.values[given] = given if value is None else value

    def __call__(self, number: Fraction) -> Fraction:
        """What a number with its sign stands for: a result, a result with the other sign, or itself."""
        for key, sign in ((number, 1), (-number, -1)):
            if key in self.values:
                value = sign * self.values[key]
                if value == number:
                    return number
                if self.asked & {key, number}:
                    self.num_ambiguous += 1
                    return number
                self.num_replaced += 1
                return value
        return number


def check(step: WrittenStep, results: Results) -> Checked:
    """Judge a step as it stands, compute it with earlier results repaired, and record its result."""
    before = results.num_replaced
    value, given = evaluate(step.lhs, results), evaluate(step.rhs)
    as_written = value if results.num_replaced == before else evaluate(step.lhs)
    if given is not None:
        results.define(given, value)
    if as_written is None or given is None or value is None:
        return Checked(step, "invalid", given, None)
    return Checked(step, "ok" if is_right(as_written, given, printed_unit(step.rhs)) else "wrong", given, value)


def linked(steps: Sequence[Checked], answer: Fraction | None) -> Checked | None:
    """The last step that wrote ``answer``, else the last step."""
    writers = [checked for checked in steps if answer is not None and checked.given == answer]
    return next(iter((writers or steps)[-1:]), None)


def as_the_step_writes(checked: Checked) -> str | None:
    """What a step comes to, as a percentage if its result is one; None where it has no value."""
    if checked.value is None:
        return None
    return f"{written(100 * checked.value)}%" if checked.step.rhs.endswith("%") else written(checked.value)
