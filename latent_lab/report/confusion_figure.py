"""Confusion matrices: of the problems that one way got right or wrong, how many another way got right or wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from latent_lab.report.card_figure import FILL, INK, SOFT, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT, ABOVE = 4.2, 3.75, 0.75
"""Of a panel with its labels, and of what stands above all of them, in inches."""
LEFT, RIGHT, TOP, BOTTOM = 1.15, 0.15, 0.85, 0.6
"""Margins of a panel that hold its labels."""
LONGEST_NOTE = 44
"""Characters of a note on a line."""


@dataclass(frozen=True)
class Panel:
    """One matrix."""

    title: str
    note: str
    """What was compared, in a line below the title."""
    table: tuple[int, ...]
    """Both right, the first alone, the second alone, neither."""
    first: str = "Original"
    second: str = "Tool"


def draw(title: str, subtitle: str, panels: Sequence[Panel], path: Path) -> None:
    """Draw matrices side by side into a PNG file; the same panels give the same bytes."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        width, height = WIDTH * len(panels) + 0.15, ABOVE + HEIGHT
        figure = Figure(figsize=(width, height), dpi=120, facecolor="white")
        for place, panel in enumerate(panels):
            across, up = (WIDTH - LEFT - RIGHT) / width, (HEIGHT - TOP - BOTTOM) / height
            draw_panel(figure.add_axes(((WIDTH * place + LEFT) / width, BOTTOM / height, across, up)), panel)
        figure.text(0.25 / width, 1 - 0.3 / height, title, fontsize=14, fontweight="bold", va="center")
        figure.text(0.25 / width, 1 - 0.58 / height, subtitle, fontsize=9, color=SOFT, va="center")
        figure.savefig(path, metadata={"Software": None})


def draw_panel(axes: "Axes", panel: Panel) -> None:
    """Draw one matrix: rows for the first way, columns for the second; the darker, the more problems."""
    total = max(sum(panel.table), 1)
    axes.set_xlim(0, 2)
    axes.set_ylim(2, 0)
    for place, count in enumerate(panel.table):
        row, column = divmod(place, 2)
        share = count / total
        axes.fill(
            [column, column + 1, column + 1, column],
            [row, row, row + 1, row + 1],
            color=FILL,
            alpha=0.08 + 0.82 * share,
            linewidth=0,
        )
        colour = "white" if share > 0.5 else INK
        middle: Any = {"ha": "center", "va": "center", "color": colour}
        axes.text(column + 0.5, row + 0.45, f"{count:,}", fontsize=17, fontweight="bold", **middle)
        axes.text(column + 0.5, row + 0.66, f"{100 * share:.1f}%", fontsize=9, **middle)
    axes.axhline(1, color="white", linewidth=2)
    axes.axvline(1, color="white", linewidth=2)
    both, first, second, _ = panel.table
    ways = ((panel.first, both + first, axes.set_yticks), (panel.second, both + second, axes.set_xticks))
    for way, right, labels in ways:
        rate = f"{100 * right / total:.1f}%"
        labels([0.5, 1.5], [f"{way} right\n{right:,} ({rate})", f"{way} wrong\n{total - right:,}"], color=INK)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0)
    axes.set_title(fill(panel.note, LONGEST_NOTE), loc="left", fontsize=8.5, color=SOFT, pad=8)
    axes.annotate(panel.title, (0, 1), (0, 34), xycoords="axes fraction", textcoords="offset points", fontweight="bold")
