"""Accuracy against tokens: thinking again, voting, and both, on one axis."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latent_lab.deliberation.rivals import BY, KNOWS_GOLD, THEN_VOTE, VOTE
from latent_lab.report.card_figure import SOFT, STYLE, bare
from latent_lab.report.iterations_figure import COLOURS, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GREY = "#9aa5b1"
NOTE = "bands: 95% intervals over problems; dashed: finished chains that vote; dotted: knows the gold answer"
WEIGHTED = "; dash-dotted: the same vote, weighted"


def draw_tokens(result: Mapping[str, Any], path: Path) -> None:
    """Draw the curves of a result of ``task=summarize`` into a PNG file; the same result gives the same bytes."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(11, 5.2), dpi=120, facecolor="white")
        axes = figure.add_axes((0.06, 0.11, 0.66, 0.73))
        draw_curves(axes, result["curves"])
        problems = f"{result['num_problems']:,} problems"
        figure.text(0.02, 0.945, f"Think again, or vote? {problems}", fontsize=14, fontweight="bold", va="center")
        note = NOTE + (WEIGHTED if any(map(is_weighted, result["curves"])) else "")
        figure.text(0.02, 0.89, note, fontsize=9, color=SOFT, va="center")
        figure.savefig(path, metadata={"Software": None})


def is_weighted(name: str) -> bool:
    """Whether a recipe is a weighted vote."""
    return name.startswith(f"{VOTE}{BY}") or f"{THEN_VOTE}{BY}" in name


def base(name: str) -> str:
    """Whose attempts a recipe takes: a method's, or first attempts."""
    return VOTE if name.startswith(VOTE) else name.partition(THEN_VOTE)[0]


def draw_curves(axes: "Axes", curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Every recipe's line with its band, named at its end."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    bases = [name for name in curves if name == base(name) != VOTE and name not in KNOWS_GOLD]
    colours = {VOTE: "#1f2933", **{name: COLOURS[i % len(COLOURS)] for i, name in enumerate(bases)}}
    ends = {}
    for name, line in curves.items():
        colour = colours.get(base(name), GREY)
        style = ":" if name in KNOWS_GOLD else "-." if is_weighted(name) else "--" if THEN_VOTE in name else "-"
        xs = [point["tokens"] for point in line]
        ys, lows, highs = ([100 * point["accuracy"][key] for point in line] for key in ("value", "low", "high"))
        axes.plot(xs, ys, color=colour, linestyle=style, linewidth=1.8, marker="o", markersize=3.5)
        if name not in KNOWS_GOLD and not is_weighted(name):
            axes.fill_between(xs, lows, highs, color=colour, alpha=0.1, linewidth=0)
        ends[name] = ys[-1]
    low, high = axes.get_ylim()
    places = spread(ends, (high - low) / 20, high)
    for name, place in places.items():
        colour = colours.get(base(name), GREY)
        axes.annotate(
            f"{name}  {ends[name]:.1f}", (1.02, place), xycoords=("axes fraction", "data"), va="center", color=colour,
            fontsize=8.5, annotation_clip=False,
        )  # fmt: skip
    axes.set_ylim(low, high)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("tokens written for a problem")
    axes.set_ylabel("right, %")
    bare(axes, "y")
