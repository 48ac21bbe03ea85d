"""Which slot holds which step, as a picture: a matrix of what linear probes read of a field, numbers in the cells."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from latent_lab.report.card_figure import FLOOR, INK, SOFT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CELL = 0.46
"""Side of a cell, in inches."""
MARGINS = (0.75, 1.1)
"""What labels take beside and above a matrix, in inches."""
NOTE = (
    "Large: accuracy on test problems, in %. Small: the better of the best constant and the position's training majority. "
    "Framed: the step a slot stands for. Dash: the field does not vary there. Below each step: its number of test problems."
)
"""How such a matrix is read."""
EMPTY, FULL = "#f0f2f4", "#17456b"
"""Of a cell without a number, and of one with all right: one hue from light to dark, which prints, and which all eyes order."""
DARK = 0.67
"""From here on white letters are the more legible ones."""


def size(matrix: dict[str, Any]) -> tuple[float, float]:
    """Width and height of a figure with one matrix, in inches."""
    columns = max((len(row) for row in matrix["value"]), default=1)
    return CELL * columns + MARGINS[0], CELL * len(matrix["value"]) + MARGINS[1]


def draw_panel(axes: "Axes", title: str, matrix: dict[str, Any], own: Sequence[int | None]) -> None:
    """Draw one matrix: rows for slots, columns for steps; ``own`` are the steps that slots stand for, from 1."""
    values, floors, numbers = matrix["value"], matrix.get("floor"), matrix.get("n", [])
    rows, columns = len(values), max((len(row) for row in values), default=1)
    axes.set_xlim(0, columns)
    axes.set_ylim(rows, 0)
    for row, cells in enumerate(values):
        for column, value in enumerate(cells):
            draw_cell(axes, row, column, value, floors[row][column] if floors else None)
    for row, step in enumerate(own):
        if step is not None and row < rows and step <= columns:
            corners = ([step - 1, step, step, step - 1, step - 1], [row, row, row + 1, row + 1, row])
            axes.plot(*corners, color=FLOOR, linewidth=2.2, zorder=4, clip_on=False, solid_joinstyle="miter")
    counts = [max((cells[j] or 0 for cells in numbers), default=0) for j in range(columns)]
    axes.set_xticks([j + 0.5 for j in range(columns)], [f"{j + 1}\n{n:,}" if n else str(j + 1) for j, n in enumerate(counts)])
    axes.set_yticks([k + 0.5 for k in range(rows)], [str(k + 1) for k in range(rows)])
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_xlabel("step", labelpad=1)
    axes.set_ylabel("slot")
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
