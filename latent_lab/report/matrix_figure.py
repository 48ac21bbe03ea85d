"""Which slot holds which step, as a picture: for each field a matrix of what linear probes read, numbers in the cells."""

import math
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from latent_lab.report.card_figure import FLOOR, INK, SOFT, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CELL = 0.46
"""Side of a cell, in inches."""
LEFT, RIGHT, TOP, BOTTOM = 0.55, 0.1, 0.4, 0.62
"""Margins of a panel that hold its labels, in inches."""
ABOVE, BELOW = 0.85, 0.5
"""What stands above and below all panels, in inches."""
WIDEST = 13.0
"""Inches; panels that do not fit go to the next line."""
LONGEST_LINE = 12.5
"""Characters of a note in an inch of width."""
NOTE = (
    "Large: accuracy on test problems, %. Small: floor (the better of the best constant and the position's training majority). "
    "Framed: the step a slot stands for. Dash: the field does not vary there. Below each step: its number of test problems."
)
EMPTY, FULL = "#f0f2f4", "#17456b"
"""Of a cell without a number, and of one with all right: one hue from light to dark, which prints, and which all eyes order."""
DARK = 0.67
"""From here on white letters are the more legible ones."""


def draw(report: dict[str, Any], path: Path, *, title: str = "Which slot holds which step", subtitle: str | None = None) -> None:
    """Draw the matrices of a layer's probes into a PNG file; the same report gives the same bytes.

    ``report`` is what :func:`latent_lab.thoughts.probes.probe_report` says of a layer: of it ``matrix``, ``own``, ``position``
    and ``layer``, if it is there, are drawn. Rows are slots, columns are steps; the darker, the more is read.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    panels = report["matrix"]
    rows, columns = shape(panels)
    across, up = LEFT + CELL * columns + RIGHT, TOP + CELL * rows + BOTTOM
    per_line = max(1, min(len(panels), int(WIDEST / across)))
    lines = math.ceil(len(panels) / per_line)
    width, height = max(per_line * across, 7.0), ABOVE + lines * up + BELOW
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=150, facecolor="white")
        for place, (field, matrix) in enumerate(panels.items()):
            line, column = divmod(place, per_line)
            left, bottom = column * across + LEFT, height - ABOVE - (line + 1) * up + BOTTOM
            box = (left / width, bottom / height, CELL * columns / width, CELL * rows / height)
            axes = figure.add_axes(box)
            draw_panel(axes, field.replace("_", " "), matrix, report.get("own") or [])
            axes.set_ylabel("slot" if column == 0 else "")
        figure.text(0.25 / width, 1 - 0.3 / height, title, fontsize=14, fontweight="bold", va="center")
        figure.text(0.25 / width, 1 - 0.6 / height, subtitle or in_words(report), fontsize=9, color=SOFT, va="center")
        note = fill(NOTE, int(LONGEST_LINE * width))
        figure.text(0.25 / width, 0.12 / height, note, fontsize=8, color=SOFT, va="bottom")
        figure.savefig(path, metadata={"Software": None})


def shape(panels: dict[str, Any]) -> tuple[int, int]:
    """Slots and steps; (1, 1) where there are none."""
    grids = [matrix["value"] for matrix in panels.values()]
    return max((len(grid) for grid in grids), default=1) or 1, max((len(row) for grid in grids for row in grid), default=1) or 1


def in_words(report: dict[str, Any]) -> str:
    """What is read, from which layer, and the position score of the whole step."""
    layer = report.get("layer")
    what = "linear probes" if layer is None else f"linear probes of {'the thoughts' if layer == 0 else f'layer {layer}'}"
    position = report.get("position") or {}
    if position.get("value") is None:
        return what
    value, low, high = (f"{100 * position[key]:+.1f}" for key in ("value", "low", "high"))
    return f"{what}; own step above the best other step, whole step: {value} points (95% interval {low} to {high})"


def draw_panel(axes: "Axes", title: str, matrix: dict[str, Any], own: list[int | None]) -> None:
    """Draw one matrix: rows for slots, columns for steps."""
    values = matrix["value"]
    rows, columns = len(values), max((len(row) for row in values), default=1)
    axes.set_xlim(0, columns)
    axes.set_ylim(rows, 0)
    for row, cells in enumerate(values):
        for column, value in enumerate(cells):
            draw_cell(axes, row, column, value, matrix["floor"][row][column])
    for row, step in enumerate(own):
        if step is not None and row < rows and step <= columns:
            corners = ([step - 1, step, step, step - 1, step - 1], [row, row, row + 1, row + 1, row])
            axes.plot(*corners, color=FLOOR, linewidth=2.2, zorder=4, clip_on=False, solid_joinstyle="miter")
    counts = [max((cells[j] or 0 for cells in matrix["n"]), default=0) for j in range(columns)]
    axes.set_xticks([j + 0.5 for j in range(columns)], [f"{j + 1}\n{n:,}" if n else str(j + 1) for j, n in enumerate(counts)])
    axes.set_yticks([k + 0.5 for k in range(rows)], [str(k + 1) for k in range(rows)])
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_xlabel("step", labelpad=1)
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold", pad=6)


def draw_cell(axes: "Axes", row: int, column: int, value: float | None, floor: float | None) -> None:
    """Draw a cell with its number and its floor."""
    box: Any = ([column, column + 1, column + 1, column], [row, row, row + 1, row + 1])
    middle: Any = {"ha": "center", "va": "center", "zorder": 5}
    if value is None:
        axes.fill(*box, color=EMPTY, linewidth=0)
        axes.text(column + 0.5, row + 0.5, "–", color=SOFT, fontsize=9, **middle)
    else:
        axes.fill(*box, color=FULL, alpha=0.05 + 0.95 * value, linewidth=0)
        colour = "white" if value > DARK else INK
        axes.text(column + 0.5, row + 0.4, f"{100 * value:.0f}", color=colour, fontsize=9.5, fontweight="bold", **middle)
        if floor is not None:
            axes.text(column + 0.5, row + 0.76, f"{100 * floor:.0f}", color=colour, fontsize=7, **middle)
    edge: Any = {"color": "white", "linewidth": 1.2, "zorder": 3}
    axes.plot([column, column + 1, column + 1, column, column], [row, row, row + 1, row + 1, row], **edge)
