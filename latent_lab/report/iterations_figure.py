"""Accuracy by iteration: all methods together, what each gains, and each by itself with its interval."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latent_lab.report.card_figure import FILL, FLOOR, INK, SOFT, STYLE, bare

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = (FILL, "#8e6bbf", "#5fad6d", "#c8553d", "#b08900", "#3f7f7f", "#9aa5b1", "#a14a76")
LINES = ("-", "--", ":")
"""A line's style changes where the colours begin again."""
WIDTH, ABOVE, TOP, ROW = 11.0, 1.05, 4.2, 2.1
"""Of the figure, what stands above all panels, the upper panels, and a row of the lower ones, in inches."""
BETWEEN, UNDER = 0.4, 0.5
"""Room for the titles of the lower panels, and below panels for their axis, in inches."""
OTHERS = "#c3cad3"
"""Lines of other methods."""
COLUMNS = 4
LONGEST_NAME = 17
"""Characters of a method's name."""


@dataclass(frozen=True)
class Look:
    """How a method is drawn and called."""

    colour: str
    line: str
    label: str


Looks = Mapping[str, Look]


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw a result of ``task=iterations`` into a PNG file; the same result gives the same bytes."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    order, methods = result["ranking"]["order"], result["methods"]
    looks = looks_of(order)
    with rc_context(STYLE):
        rows = -(-len(order) // COLUMNS)
        top = TOP + 0.2 * max(0, len(order) - 8)
        height = ABOVE + top + BETWEEN + ROW * rows
        figure = Figure(figsize=(WIDTH, height), dpi=120, facecolor="white")
        middle = (BETWEEN + ROW * rows) / height
        upper = figure.add_gridspec(1, 2, left=0.06, right=0.93, top=1 - ABOVE / height, bottom=middle + UNDER / height,
                                    width_ratios=[1.25, 1], wspace=0.7)  # fmt: skip
        draw_together(figure.add_subplot(upper[0]), order, methods, looks)
        draw_gains(figure.add_subplot(upper[1]), order, methods, looks)
        lower = figure.add_gridspec(rows, COLUMNS, left=0.06, right=0.985, top=middle - BETWEEN / height,
                                    bottom=UNDER / height, hspace=0.65, wspace=0.2)  # fmt: skip
        limits = reach(methods)
        for place, name in enumerate(order):
            axes = figure.add_subplot(lower[place // COLUMNS, place % COLUMNS])
            draw_alone(axes, name, methods, looks[name])
            axes.set_ylim(*limits)
        figure.text(0.02, 1 - 0.3 / height, headline(result), fontsize=14, fontweight="bold", va="center")
        figure.text(0.02, 1 - 0.58 / height, subtitle(result), fontsize=9, color=SOFT, va="center")
        figure.savefig(path, metadata={"Software": None})


def headline(result: dict[str, Any]) -> str:
    """What the figure shows, in a line."""
    methods, iterations = len(result["methods"]), result["num_iterations"]
    ways = f"{methods} method{'s' * (methods > 1)}"
    return f"Thinking again: {ways}, {result['num_problems']:,} problems, {iterations} iteration{'s' * (iterations > 1)}"


def subtitle(result: dict[str, Any]) -> str:
    """What bands and whiskers are, and how many chains stand behind a point."""
    sizes = sorted({method["num_chains"] for method in result["methods"].values()})
    chains = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    marks = "bands and whiskers: 95% intervals over problems; dots: runs; dotted: where it began"
    return f"accuracy in % of {chains} chains a method; {marks}"


def series(method: Mapping[str, Any], key: str = "value") -> list[float]:
    """A method's accuracy, or an end of its interval, at every iteration, in percent."""
    return [100 * each["accuracy"][key] for each in method["iterations"]]


def draw_together(axes: "Axes", order: Sequence[str], methods: Mapping[str, Any], looks: Looks) -> None:
    """All methods in one panel, each named where its line ends."""
    ends = {name: series(methods[name])[-1] for name in order}
    last = len(series(methods[order[0]])) - 1
    for name in order:
        look: Any = {"color": looks[name].colour, "linestyle": looks[name].line}
        axes.plot(range(last + 1), series(methods[name]), **look, linewidth=1.8, marker="o", markersize=3.5)
    low, high = min(v for n in order for v in series(methods[n])), max(v for n in order for v in series(methods[n]))
    air = max(2.0, 0.08 * (high - low))
    axes.set_ylim(low - air, high + air)
    places = spread(ends, (high - low + 2 * air) / 19, high + air)
    for name in order:
        axes.annotate(
            f"{looks[name].label}  {ends[name]:.1f}", (last, places[name]), (8, 0), textcoords="offset points", va="center",
            color=looks[name].colour, fontsize=8.5, annotation_clip=False,
        )  # fmt: skip
    finish(axes, last)
    axes.set_title("All methods", loc="left", fontsize=10, fontweight="bold", color=INK)
    axes.set_ylabel("right, %")


def spread(ends: Mapping[str, float], gap: float, top: float) -> dict[str, float]:
    """Heights for labels, ``gap`` apart and below ``top`` where there is room: pushed up from below, then down from above."""
    places: dict[str, float] = {}
    floor = -math.inf
    for name, end in sorted(ends.items(), key=lambda item: item[1]):
        places[name] = floor = max(end, floor + gap)
    ceiling = top
    for name in reversed(list(places)):
        places[name] = min(places[name], ceiling)
        ceiling = places[name] - gap
    return places


def draw_gains(axes: "Axes", order: Sequence[str], methods: Mapping[str, Any], looks: Looks) -> None:
    """Each method's last iteration minus its first, with its interval, and what was fixed and broken."""
    for place, name in enumerate(reversed(order)):
        gain = methods[name]["gain"]
        low, value, high = (100 * gain["difference"][key] for key in ("low", "value", "high"))
        axes.plot([low, high], [place, place], color=looks[name].colour, linewidth=2.2, alpha=0.5, solid_capstyle="butt")
        axes.plot(value, place, "D", color=looks[name].colour, markersize=6, markeredgecolor="white", markeredgewidth=0.8)
        axes.annotate(
            f"+{gain['fixed']} −{gain['broken']}", (1.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=8.5,
            annotation_clip=False,
        )  # fmt: skip
    axes.axvline(0, color=SOFT, linewidth=0.8)
    axes.set_yticks(range(len(order)), [looks[name].label for name in reversed(order)], color=INK)
    axes.set_ylim(-0.6, len(order) - 0.4)
    axes.set_xlabel("points")
    axes.set_title("First to last; chains fixed, broken", loc="left", fontsize=10, fontweight="bold", color=INK)
    bare(axes, "x")


def draw_alone(axes: "Axes", name: str, methods: Mapping[str, Any], look: Look) -> None:
    """One method with its interval and its runs; the others are grey, where it began is a line."""
    last = len(series(methods[name])) - 1
    for other, method in methods.items():
        if other != name:
            axes.plot(range(last + 1), series(method), color=OTHERS, linewidth=1)
    axes.axhline(series(methods[name])[0], color=FLOOR, linewidth=1, linestyle=":")
    axes.fill_between(
        range(last + 1), series(methods[name], "low"), series(methods[name], "high"), color=look.colour, alpha=0.18, linewidth=0
    )
    axes.plot(range(last + 1), series(methods[name]), color=look.colour, linewidth=1.8)
    for each in methods[name]["iterations"]:
        runs = [100 * share for share in each["per_run"].values()]
        axes.plot([each["iteration"]] * len(runs), runs, "o", color=look.colour, markersize=2.6, alpha=0.6, markeredgewidth=0)
    axes.set_title(look.label, loc="left", fontsize=9.5, color=INK)
    finish(axes, last)


def finish(axes: "Axes", last: int) -> None:
    """Whole iterations below, light lines across."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(-0.2, max(last, 1) + 0.2)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.set_xlabel("iteration")
    bare(axes, "y")


def reach(methods: Mapping[str, Any]) -> tuple[float, float]:
    """From below the lowest to above the highest number of all lower panels."""
    shares = [
        100 * share
        for method in methods.values()
        for each in method["iterations"]
        for share in (each["accuracy"]["low"], each["accuracy"]["high"], *each["per_run"].values())
    ]
    return min(shares) - 2, max(shares) + 2


def looks_of(order: Sequence[str]) -> dict[str, Look]:
    """How each method is drawn; names lose the words that all of them begin and end with."""
    words = [re.split(r"(?<=[-_/ ])", name) for name in order]
    for end in (0, -1):
        while len(order) > 1 and all(len(each) > 1 for each in words) and len({each[end].strip("-_/ ") for each in words}) == 1:
            words = [each[1:] if end == 0 else each[:-1] for each in words]
    return {
        name: Look(COLOURS[i % len(COLOURS)], LINES[i // len(COLOURS) % len(LINES)], short("".join(each).strip("-_/ ")))
        for i, (name, each) in enumerate(zip(order, words, strict=True))
    }


def short(name: str) -> str:
    """A name that fits beside a line: its beginning and its end."""
    half = (LONGEST_NAME - 1) // 2
    return name if len(name) <= LONGEST_NAME else f"{name[:half]}…{name[-half:]}"
