"""Charts as inline SVG: pure functions from numbers to markup, coloured by the page's style sheet, readable without scripts.

Coordinates are in CSS pixels from the top left and are written with at most one decimal. Every text is escaped.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

LEFT, RIGHT, TOP = 46, 20, 26
"""Margins: tick labels of the value axes, half of the last tick label, names of the stages."""
ACCURACY_HEIGHT, GAP, LOSS_HEIGHT, AXES_HEIGHT = 200, 40, 96, 62
"""The two panels, the space between them (it holds the lower one's title) and the two axes below, steps and minutes."""
CHARACTER = 6.6
"""Width of a character in a stage's name, generously, so that a name that does not fit is found without measuring fonts."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """One measured share at a training step: ``value`` and its interval are shares from 0 to 1; ``label`` tells it in words."""

    step: int
    value: float
    low: float
    high: float
    label: str


@dataclass(frozen=True, slots=True)
class Span:
    """The steps a stage was trained for, first and last; of its ``names``, longest first, the first that fits is drawn."""

    first: int
    last: int
    names: tuple[str, ...]


def interval_bar(value: float, low: float, high: float, *, kind: str) -> Markup:
    """Draw a share from 0 to 1 as a bar with whiskers from ``low`` to ``high``; it fills whatever width it is given.

    ``kind`` becomes a class, ``model`` or ``floor``. The bar repeats numbers that stand beside it, so readers by ear skip it.
    """
    x, start, end = (_number(100 * share) for share in (value, low, high))
    return Markup(
        f'<svg class="bar {escape(kind)}" width="100%" height="16" aria-hidden="true">'
        '<rect class="track" x="0" y="5" width="100%" height="6"/>'
        f'<rect class="fill" x="0" y="5" width="{x}%" height="6"/>'
        f'<line class="whisker" x1="{start}%" x2="{end}%" y1="8" y2="8"/>'
        f'<line class="whisker" x1="{start}%" x2="{start}%" y1="3" y2="13"/>'
        f'<line class="whisker" x1="{end}%" x2="{end}%" y1="3" y2="13"/></svg>'
    )


def tally(count: float, *, kind: str, size: int = 8, gap: int = 3, columns: int = 24) -> Markup:
    """Draw ``count`` unit squares in rows of ``columns``, the last one cut where the count is no whole number; 0 draws none."""
    pitch = size + gap
    units = math.ceil(count)
    squares = []
    for index in range(units):
        x, y = index % columns * pitch, index // columns * pitch
        squares.append(f'<rect x="{x}" y="{y}" width="{_number(size * min(1.0, count - index))}" height="{size}"/>')
    width, height = min(units, columns) * pitch, math.ceil(units / columns) * pitch
    return Markup(
        f'<svg class="tally {escape(kind)}" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'aria-hidden="true">{"".join(squares)}</svg>'
    )


def vector_grid(vector: Sequence[float], *, columns: int = 16, size: int = 6) -> Markup:
    """Draw a vector as a grid of squares: the sign is the colour, the size relative to the largest entry the opacity.

    An empty vector draws nothing.
    """
    largest = max((abs(entry) for entry in vector), default=0.0) or 1.0
    squares = [
        f'<rect class="{"positive" if entry >= 0 else "negative"}" x="{index % columns * size}" y="{index // columns * size}" '
        f'width="{size}" height="{size}" fill-opacity="{abs(entry) / largest:.2f}"/>'
        for index, entry in enumerate(vector)
    ]
    width, height = min(len(vector), columns) * size, math.ceil(len(vector) / columns) * size
    return Markup(
        f'<svg class="vector" viewBox="0 0 {width} {height}" width="{width}" height="{height}" aria-hidden="true">'
        f"{''.join(squares)}</svg>"
        if vector
        else ""
    )


def learning_curve(
    estimates: Sequence[Sequence[Estimate]],
    losses: Sequence[tuple[str, Sequence[tuple[int, float]]]],
    spans: Sequence[Span],
    clock: Sequence[tuple[int, float]],
    *,
    width: int,
    label: str,
) -> Markup:
    """Draw accuracy over steps with its interval band, the losses in log scale beneath, and an axis of steps and of minutes.

    ``estimates`` holds one stretch of points for each stage (the line is not drawn across stages); ``losses`` holds a name and
    its points (step, loss), of which those above 0 are drawn; ``clock`` holds (step, seconds), rising. Without losses the lower
    panel is left out. ``label`` is what readers by ear are told.
    """
    kept = [(name, [(step, loss) for step, loss in line if 0 < loss < math.inf]) for name, line in losses]
    kept = [(name, line) for name, line in kept if line]
    steps = [point.step for stretch in estimates for point in stretch] + [step for _, line in kept for step, _ in line]
    plot = _Plot(width, max([*steps, *(span.last for span in spans), 1]))
    bottom = TOP + ACCURACY_HEIGHT + (GAP + LOSS_HEIGHT if kept else 0)
    parts = [_stages(plot, spans, bottom), _accuracy(plot, estimates)]
    if kept:
        parts.append(_losses(plot, kept))
    parts.append(_time_axes(plot, bottom, clock))
    height = bottom + AXES_HEIGHT
    return Markup(
        f'<svg class="curve" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


@dataclass(frozen=True, slots=True)
class _Plot:
    width: int
    last_step: int

    @property
    def right(self) -> int:
        return self.width - RIGHT

    def x(self, step: float) -> float:
        return LEFT + step / self.last_step * (self.right - LEFT)


def _share_y(share: float) -> float:
    return TOP + (1 - share) * ACCURACY_HEIGHT


def _stages(plot: _Plot, spans: Sequence[Span], bottom: float) -> str:
    parts = []
    for span in spans:
        start, end = plot.x(max(span.first - 1, 0)), plot.x(span.last)
        name = next((name for name in span.names if len(name) * CHARACTER <= end - start), "")
        parts.append(f'<line class="boundary" x1="{_number(start)}" x2="{_number(start)}" y1="8" y2="{bottom}"/>')
        parts.append(_text(start + 5, 16, name, "stage"))
    return "".join(parts)


def _accuracy(plot: _Plot, estimates: Sequence[Sequence[Estimate]]) -> str:
    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(_grid_line(plot, _share_y(share), f"{share:.0%}"))
    for stretch in estimates:
        upper = [(plot.x(point.step), _share_y(point.high)) for point in stretch]
        lower = [(plot.x(point.step), _share_y(point.low)) for point in reversed(stretch)]
        middle = [(plot.x(point.step), _share_y(point.value)) for point in stretch]
        parts.append(f'<polygon class="band" points="{_points(upper + lower)}"/>')
        parts.append(f'<polyline class="line" points="{_points(middle)}"/>')
        for (x, y), point in zip(middle, stretch, strict=True):
            circle = f'<circle class="point" cx="{_number(x)}" cy="{_number(y)}" r="3.5">'
            parts.append(f"{circle}<title>{escape(point.label)}</title></circle>")
    return "".join(parts)


def _losses(plot: _Plot, losses: Sequence[tuple[str, Sequence[tuple[int, float]]]]) -> str:
    top = TOP + ACCURACY_HEIGHT + GAP
    values = [loss for _, line in losses for _, loss in line]
    lowest = math.floor(math.log10(min(values)))
    highest = max(math.ceil(math.log10(max(values))), lowest + 1)

    def y(loss: float) -> float:
        return top + (highest - math.log10(loss)) / (highest - lowest) * LOSS_HEIGHT

    parts = []
    stride = math.ceil((highest - lowest) / 4)
    for power in range(lowest, highest + 1, stride):
        parts.append(_grid_line(plot, y(10.0**power), f"{10.0**power:g}"))
    x = float(LEFT)
    for index, (name, line) in enumerate(losses):
        style = f"loss loss-{index}"
        parts.append(f'<line class="{style}" x1="{_number(x)}" x2="{_number(x + 18)}" y1="{top - 14}" y2="{top - 14}"/>')
        parts.append(_text(x + 24, top - 10, name, "tick"))
        parts.append(f'<polyline class="{style}" points="{_points([(plot.x(step), y(loss)) for step, loss in line])}"/>')
        x += 24 + len(name) * CHARACTER + 14
    return "".join(parts)


def _time_axes(plot: _Plot, bottom: float, clock: Sequence[tuple[int, float]]) -> str:
    count = 8 if plot.width > 500 else 4
    rows = [("steps", bottom + 20, [(step, f"{step:,.0f}") for step in nice_ticks(plot.last_step, count) if step.is_integer()])]
    if clock:
        minutes = nice_ticks(clock[-1][1] / 60, count)
        rows.append(("min", bottom + 42, [(step_at(60 * m, clock), f"{m:g}") for m in minutes]))
    parts = []
    for name, y, ticks in rows:
        parts.append(_text(LEFT - 12, y, name, "tick end"))
        for step, mark in ticks:
            x = plot.x(step)
            parts.append(f'<line class="axis" x1="{_number(x)}" x2="{_number(x)}" y1="{y - 15}" y2="{y - 11}"/>')
            parts.append(_text(x, y, mark, "tick middle"))
    return "".join(parts)


def nice_ticks(last: float, count: int) -> list[float]:
    """Return 0 and at most ``count`` further ticks up to ``last``, spaced by 1, 2 or 5 times a power of ten."""
    if last <= 0:
        return [0.0]
    power = 10.0 ** math.floor(math.log10(last / count))
    pitch = next(factor * power for factor in (1, 2, 5, 10) if factor * power * count >= last * (1 - 1e-9))
    return [round(index * pitch, 9) for index in range(math.floor(last / pitch + 1e-9) + 1)]


def step_at(seconds: float, clock: Sequence[tuple[int, float]]) -> float:
    """Return the step reached after ``seconds`` by straight lines between (0, 0) and the points (step, seconds) of ``clock``."""
    before = (0, 0.0)
    for after in clock:
        if after[1] >= seconds and after[1] > before[1]:
            share = (seconds - before[1]) / (after[1] - before[1])
            return before[0] + share * (after[0] - before[0])
        before = after
    return float(before[0])


def _grid_line(plot: _Plot, y: float, mark: str) -> str:
    line = f'<line class="grid" x1="{LEFT}" x2="{plot.right}" y1="{_number(y)}" y2="{_number(y)}"/>'
    return line + _text(LEFT - 8, y + 4, mark, "tick end")


def _text(x: float, y: float, words: str, style: str) -> str:
    return f'<text class="{style}" x="{_number(x)}" y="{_number(y)}">{escape(words)}</text>'


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{_number(x)},{_number(y)}" for x, y in points)


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
