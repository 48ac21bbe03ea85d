"""The data card as a picture: four histograms, and the shortcut floors as bars with their intervals."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, SOFT, GRID, FILL, FLOOR = "#1f2933", "#616e7c", "#e4e7eb", "#3a7ca5", "#d98c3f"
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": GRID,
    "axes.axisbelow": True,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
}
"""What all figures of the reports share."""
PANELS = {
    "question_tokens": "Question, tokens",
    "chain_tokens": "Chain, tokens",
    "answer_tokens": "Answer, tokens",
    "steps": "Steps",
}
MOST_BARS = 24
"""Bars of a histogram; more different lengths than that share bars of equal width."""
LEAST_VALUES = 7
"""Lengths an axis reaches over at least."""
ROW_HEIGHT, LEAST_HEIGHT, LEAST_ROWS = 0.36, 4.6, 8
"""Of a floor's row and of the figure without its title, in inches; rows there is always room for."""
LONGEST_NAME = 26
"""Characters of a floor's name on a line."""


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw a data card's ``result`` into a PNG file; the same result gives the same bytes."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        height = max(LEAST_HEIGHT, 1.4 + ROW_HEIGHT * len(result["floors"])) + 0.8
        figure = Figure(figsize=(12, height), dpi=120, facecolor="white")
        left, right = 0.055, 0.56
        top, bottom = 1 - 1.05 / height, 0.5 / height
        grid = figure.add_gridspec(2, 2, left=left, right=right, top=top, bottom=bottom, hspace=0.42, wspace=0.24)
        for index, (key, title) in enumerate(PANELS.items()):
            counts = {int(value): count for value, count in result["histograms"][key].items()}
            axes = figure.add_subplot(grid[index])
            draw_histogram(axes, title, counts)
            axes.set_ylabel("problems" if index % 2 == 0 else "")
        beside = figure.add_gridspec(1, 1, left=0.75, right=0.955, top=top, bottom=bottom)
        draw_floors(figure.add_subplot(beside[0]), result["floors"])
        figure.text(left, 1 - 0.32 / height, headline(result), fontsize=14, fontweight="bold", va="center")
        figure.text(left, 1 - 0.6 / height, subtitle(result), fontsize=9, color=SOFT, va="center")
        figure.savefig(path, metadata={"Software": None})


def headline(result: dict[str, Any]) -> str:
    """What the figure shows, in a line."""
    return f"{result['dataset']}: {result['n']:,} {result['split']} problems"


def subtitle(result: dict[str, Any]) -> str:
    """The sizes of all splits, what they share, and the tokenizer."""
    sizes = ", ".join(f"{split} {'none' if size is None else f'{size:,}'}" for split, size in result["sizes"].items())
    shared = sum(result["overlaps"].values())
    repeated = "one file stands for all" if result.get("is_one_for_all") else f"{shared:,}"
    return f"splits: {sizes}  |  questions in two splits: {repeated}  |  tokenizer: {Path(result['tokenizer']).name}"


def draw_histogram(axes: "Axes", title: str, counts: dict[int, int]) -> None:
    """Draw how many problems have each length; the mean is a line."""
    from matplotlib.ticker import MaxNLocator

    edges, heights = binned(counts)
    width = edges[1] - edges[0]
    axes.bar(
        [edge - 0.5 for edge in edges[:-1]], heights, width=width, align="edge", color=FILL, edgecolor="white", linewidth=0.6
    )
    mean = sum(value * count for value, count in counts.items()) / sum(counts.values())
    axes.axvline(mean, color=FLOOR, linewidth=1.4)
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK)
    axes.set_title(f"mean {mean:.1f}", loc="right", fontsize=9, color=FLOOR)
    axes.set_xlim(*reach_of(edges))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    bare(axes, "y")


def binned(counts: dict[int, int]) -> tuple[list[int], list[int]]:
    """Whole-number edges of equally wide bars, one more than bars, and how many problems each bar holds."""
    low, high = min(counts), max(counts)
    width = max(1, -(-(high - low + 1) // MOST_BARS))
    edges = list(range(low, high + 1 + width, width))
    heights = [0] * (len(edges) - 1)
    for value, count in counts.items():
        heights[(value - low) // width] += count
    return edges, heights


def reach_of(edges: list[int]) -> tuple[float, float]:
    """Where a histogram's axis begins and ends: a little beyond its bars, and wide enough that a single length is a bar."""
    missing = max(0, LEAST_VALUES - (edges[-1] - edges[0])) / 2
    air = 0.02 * (edges[-1] - edges[0] + 2 * missing)
    return edges[0] - 0.5 - missing - air, edges[-1] - 0.5 + missing + air


def draw_floors(axes: "Axes", floors: dict[str, dict[str, Any]]) -> None:
    """Draw each rule's score as a bar with its interval, the highest on top."""
    axes.set_title("Shortcut floors, % right", loc="left", fontsize=10, fontweight="bold", color=INK)
    ranked = sorted(floors.items(), key=lambda item: item[1]["value"])
    if not ranked:
        axes.set_axis_off()
        return
    values = [100 * score["value"] for _, score in ranked]
    reach = [[100 * (s["value"] - s["low"]) for _, s in ranked], [100 * (s["high"] - s["value"]) for _, s in ranked]]
    places = range(len(ranked))
    axes.barh(places, values, height=0.56, color=FLOOR, alpha=0.85)
    axes.errorbar(values, places, xerr=reach, fmt="none", ecolor=INK, elinewidth=1, capsize=2.5)
    axes.set_yticks(places, [fill(name.replace("_", " "), LONGEST_NAME) for name, _ in ranked], color=INK)
    axes.set_ylim(min(0, len(ranked) - LEAST_ROWS) - 0.6, len(ranked) - 0.4)
    axes.set_xlim(0, limit(values, reach[1]))
    for place, (_, score) in zip(places, ranked, strict=True):
        label = f"{100 * score['value']:.1f}"
        axes.annotate(label, (100 * score["high"], place), (5, 0), textcoords="offset points", va="center", fontsize=8.5)
    bare(axes, "x")


def limit(values: Sequence[float], above: Sequence[float]) -> float:
    """Where the axis of the floors ends: beyond the longest whisker, with room for its label."""
    return min(118.0, max(5.0, 1.22 * max(value + more for value, more in zip(values, above, strict=True))))


def bare(axes: "Axes", grid: str) -> None:
    """Leave only what is read: light lines across, no frame, no tick marks."""
    axes.grid(axis=grid, color=GRID, linewidth=0.8)  # type: ignore[arg-type]
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0)
