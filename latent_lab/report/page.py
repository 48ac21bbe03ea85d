"""The page: one self-contained HTML file that shows what a model answered, what it thought, and how right that was.

``write_page(path, Report.from_dict(json.load(file)))`` needs no network, and neither does reading the page: style and charts are
inline, nothing is loaded, no script runs. Whatever a model wrote is escaped.
"""

import re
import reprlib
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from itertools import groupby
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from latent_lab.files import atomic
from latent_lab.report import charts
from latent_lab.report.thoughts_cells import changes, shown
from latent_lab.report.wording import plain

PIECES = re.compile(r"\d|[^\W\d]+|[^\w\s]")
"""What the diagram shows as one token: a digit, a word, a sign."""
WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


class ReportError(ValueError):
    """Input no page can be made of; the message names the place in the input, what stands there and what is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A share of ``n`` cases with its 95% interval; ``value``, ``low`` and ``high`` are from 0 to 1."""

    value: float
    n: int
    low: float
    high: float

    def __post_init__(self) -> None:
        if self.n < 1 or not -1e-9 <= self.low <= self.value + 1e-9 <= self.high + 2e-9 <= 1 + 3e-9:
            raise ReportError(
                f"given value={self.value}, low={self.low}, high={self.high}, n={self.n}; allowed: "
                "0 <= low <= value <= high <= 1 and n of 1 or more; give shares, not percentages"
            )

    @property
    def percent(self) -> str:
        """The value as the page writes it: ``99.8%``."""
        return f"{percent(self.value, self.n)}%"

    @property
    def interval(self) -> str:
        """The interval in percent as the page writes it: ``[99.3, 99.9]``."""
        places = digits(self.n)
        return f"[{100 * self.low:.{places}f}, {100 * self.high:.{places}f}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Score(Rate):
    """Exact answers on the problems called ``name`` by one ``method``: the model, or a floor it has to beat."""

    name: str
    method: str
    kind: Literal["model", "floor"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group(Rate):
    """Exact answers on the test problems that share ``label``."""

    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotReading(Rate):
    """How often the thought in ``slot`` (from 1) was read exactly."""

    slot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingFloor(Rate):
    """How often reading succeeds by ``method``, where the thoughts it reads cannot know the problem."""

    method: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a reader finds in the thoughts: exact over all slots, its floors, and slot by slot."""

    name: str
    exact: Rate
    floors: tuple[ReadingFloor, ...] = ()
    per_slot: tuple[SlotReading, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LossPoint:
    """Training loss at a step (nats a labelled token), ``seconds`` after the start."""

    step: int
    stage: int
    loss: float
    seconds: float
    supervision_loss: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Exact validation answers at a step, with ``stage`` steps of the chain latent, ``seconds`` after the start."""

    step: int
    stage: int
    accuracy: float
    n: int
    low: float
    high: float
    seconds: float

    def __post_init__(self) -> None:
        _ = self.rate

    @property
    def rate(self) -> Rate:
        """The accuracy as a :class:`Rate`; raises :class:`ReportError` where it is none."""
        return Rate(value=self.accuracy, n=self.n, low=self.low, high=self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The steps, first and last, that were trained with ``stage`` steps of the chain latent."""

    stage: int
    first_step: int
    last_step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Means over the test answers: tokens, thoughts, milliseconds; ``chain_tokens`` is the length of the chain replaced."""

    tokens_per_answer: float
    thoughts_per_answer: float
    milliseconds_per_answer: float
    written_reasoning_tokens: float
    chain_tokens: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Thought:
    """What was ``read`` in the thought of ``slot`` (from 1) and what its step says (``gold``, empty past the chain's end).

    ``vector`` holds the thought's own numbers, where they shall be drawn.
    """

    slot: int
    read: str
    gold: str
    right: bool
    vector: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One problem as the model answered it, with what was read in each of its thoughts."""

    question: str
    answer: str
    gold: str
    right: bool
    thoughts: tuple[Thought, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything the page shows. A part left empty leaves its section out."""

    title: str
    command: str
    seed: int
    minutes: float
    revision: str
    parameters: int
    model: str
    dataset: str
    latents: int
    created: str
    accuracy: tuple[Score, ...]
    cost: Cost
    problems: tuple[Answered, ...]
    curve: tuple[LossPoint, ...] = ()
    validation: tuple[Validation, ...] = ()
    stages: tuple[Stage, ...] = ()
    breakdown: dict[str, tuple[Group, ...]] = field(default_factory=dict)
    reading: Reading | None = None
    hard_problems: tuple[Answered, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.problems:
            raise ReportError("problems: given none; allowed: one or more, the first is drawn as the page's diagram")
        if not any(score.kind == "model" for score in self.accuracy):
            raise ReportError("accuracy: given no row of kind 'model'; allowed: one or more, the first is the page's headline")

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> "Report":
        """Build a report from plain JSON values; raises :class:`ReportError` naming the first place that does not fit."""
        report = _build(cls, given, "report")
        assert isinstance(report, cls)
        return report

    @property
    def headline(self) -> Score:
        """The first score of the model itself."""
        return next(score for score in self.accuracy if score.kind == "model")

    @property
    def strongest_floor(self) -> Score | None:
        """The highest floor on the headline's problems, or None where none was measured."""
        floors = [score for score in self.accuracy if score.kind == "floor" and score.name == self.headline.name]
        return max(floors, key=lambda score: score.value, default=None)


def write_page(path: Path, report: Report, explored: dict[str, Any] | None = None) -> None:
    """Write the page to ``path``, whole or not at all; folders it lacks are made.

    ``explored`` is what ``task=thoughts`` found out about the same run: its ``ladder``, the ``examples`` of its explorer, and
    where its own ``page`` lies.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = render(report, explored)
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def render(report: Report, explored: dict[str, Any] | None = None) -> str:
    """Return the page as HTML text."""
    pages = templates()
    pages.filters.update(spelled=spelled, pieces=PIECES.findall, plain=plain)
    pages.filters.update(changes=changes, shown=shown)
    pages.globals.update(charts=charts, sets=_sets, count=_count)
    curves = [(width, _curve(report, width)) for width in (960, 340)] if report.validation else []
    return pages.get_template("page.html.j2").render(report=report, curves=curves, explored=explored)


def templates() -> Environment:
    """The templates beside this file; all they are given is escaped, and a name that is not given is an error."""
    folder = FileSystemLoader(Path(__file__).parent)
    return Environment(loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def digits(n: int) -> int:
    """Count the digits after the point that a percentage of ``n`` cases carries: 0 below 1,000 cases, 1 below 10,000, ..."""
    return max(0, len(str(n)) - 3)


def percent(share: float, n: int) -> str:
    """Write a share of ``n`` cases in percent; a share that is not 0 or 1 gets the digits it needs not to be written 0 or 100."""
    places = digits(n)
    while 1e-9 < share < 1 - 1e-9 and float(f"{100 * share:.{places}f}") in (0, 100):
        places += 1
    return f"{100 * share:.{places}f}"


def spelled(number: int) -> str:
    """Write a count in prose: in words up to ten (``no``, ``one``, ``two``), in digits above."""
    return WORDS[number] if 0 <= number < len(WORDS) else f"{number:,}"


def _sets(scores: Sequence[Score]) -> list[tuple[str, list[Score]]]:
    """Group scores by the problems they were measured on, in the order given."""
    names = dict.fromkeys(score.name for score in scores)
    return [(name, [score for score in scores if score.name == name]) for name in names]


def _count(problems: Sequence[Answered]) -> dict[str, int]:
    """Count, over problems, right answers, thoughts with a step to hold, and those of them read right."""
    thoughts = [thought for problem in problems for thought in problem.thoughts if thought.gold]
    return {
        "right": sum(problem.right for problem in problems),
        "thoughts": len(thoughts),
        "read": sum(thought.right for thought in thoughts),
    }


def _curve(report: Report, width: int) -> Markup:
    """Draw the learning curve ``width`` pixels wide, from a report with validation rows."""
    stretches = [
        [charts.Estimate(row.step, row.accuracy, row.low, row.high, f"step {row.step:,}: {_told(row.rate)}") for row in rows]
        for _, rows in groupby(report.validation, key=lambda row: row.stage)
    ]
    supervision = [(row.step, row.supervision_loss) for row in report.curve if row.supervision_loss is not None]
    losses = [("training loss (log)", [(row.step, row.loss) for row in report.curve])]
    if supervision:
        losses.append(("reading loss", supervision))
    last = report.validation[-1]
    return charts.learning_curve(
        stretches,
        losses,
        [charts.Span(span.first_step, span.last_step, _stage_names(span.stage)) for span in report.stages],
        sorted({(row.step, row.seconds) for row in _rows(report)}),
        width=width,
        label=(
            f"Line chart of validation accuracy over {last.step:,} training steps. It starts at "
            f"{report.validation[0].rate.percent} and ends at {last.rate.percent}. The numbers are in the table below."
        ),
    )


def _told(rate: Rate) -> str:
    return f"{rate.percent} {rate.interval}, n = {rate.n:,}"


def _rows(report: Report) -> Iterator[LossPoint | Validation]:
    yield from report.curve
    yield from report.validation


def _stage_names(stage: int) -> tuple[str, ...]:
    """Name a stage of the curriculum, at three lengths."""
    steps = f"{spelled(stage)} step{'' if stage == 1 else 's'} latent" if stage else "all written"
    return f"stage {stage}: {steps}", f"stage {stage}", str(stage)


def _build(kind: Any, given: Any, where: str) -> Any:
    """Make a value of type ``kind`` (dataclass, tuple, dict, optional, literal or scalar) from JSON, or say where it fails."""
    origin, arguments = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and is_dataclass(kind):
        return _build_record(kind, given, where)
    if origin is tuple:
        _check(isinstance(given, list), where, given, "a list")
        return tuple(_build(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(given))
    if origin is dict:
        _check(isinstance(given, dict), where, given, "an object")
        return {name: _build(arguments[1], item, f"{where}[{name!r}]") for name, item in given.items()}
    if origin is UnionType:
        return None if given is None else _build(arguments[0], given, where)
    if origin is Literal:
        _check(given in arguments, where, given, " or ".join(map(repr, arguments)))
        return given
    _check(type(given) is kind or (kind is float and type(given) is int), where, given, f"a value of type {kind.__name__}")
    return given


def _build_record(kind: type, given: Any, where: str) -> Any:
    _check(isinstance(given, dict), where, given, "an object")
    hints = get_type_hints(kind)
    for name in given:
        if name not in hints:
            raise ReportError(f"{where}: given the unknown key {name!r}; allowed: {', '.join(hints)}")
    for entry in fields(kind):
        if entry.name not in given and entry.default is MISSING and entry.default_factory is MISSING:
            raise ReportError(f"{where}: {entry.name!r} is missing; give it, it has no default")
    values = {name: _build(hints[name], value, f"{where}.{name}") for name, value in given.items()}
    try:
        return kind(**values)
    except ReportError as error:
        raise ReportError(f"{where}: {error}") from None


def _check(holds: bool, where: str, given: Any, allowed: str) -> None:
    if not holds:
        raise ReportError(f"{where}: given {reprlib.repr(given)}; allowed: {allowed}")
