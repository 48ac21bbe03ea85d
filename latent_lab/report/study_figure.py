"""A study as a picture: accuracy in every way to answer, what answers fail by, and how accuracy falls with steps and size."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from latent_lab.report.card_figure import FILL, FLOOR, GRID, INK, SOFT, STYLE, bare

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WAYS = {"none": FILL, "repair": "#5fad6d", "calculator": "#8e6bbf"}
"""Colours of the ways to answer."""
KINDS = {"planning": "#c0504d", "execution": FLOOR, "unclear": "#9aa5b1", "unscored": GRID}
"""Colours of what an answer fails by."""
TITLES = {"steps": "by number of steps", "operand_digits": "by digits of the largest number asked about"}
LINES = ("-", "--", ":", "-.")
"""A line style for each run; more runs than these begin again."""


def draw_study(result: dict[str, Any], path: Path) -> None:
    """Draw a study's ``result`` into a PNG file; the same result gives the same bytes."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    groups = [group for group in TITLES if any(group in run["by"] for run in result["runs"].values())]
    with rc_context(STYLE):
        bars = len(result["runs"]) * len(result["ways"])
        height = max(4.2, 1.9 + 0.34 * bars)
        figure = Figure(figsize=(4.6 * (1 + bool(has_errors(result)) + len(groups)), height), dpi=120, facecolor="white")
        panels = [draw_accuracy, *([draw_errors] if has_errors(result) else [])]
        places = figure.subplots(1, len(panels) + len(groups), squeeze=False)[0]
        for axes, panel in zip(places, panels, strict=False):
            panel(axes, result)
        for axes, group in zip(places[len(panels) :], groups, strict=True):
            draw_group(axes, result, group)
        figure.text(0.02, 1 - 0.3 / height, f"{result['dataset']}: {result['n']:,} {result['split']} problems",
                    fontsize=14, fontweight="bold", va="center")  # fmt: skip
        figure.text(0.02, 1 - 0.58 / height, "free-running answers; 95% Wilson intervals", fontsize=9, color=SOFT, va="center")
        figure.tight_layout(rect=(0.01, 0, 0.99, 1 - 0.75 / height), w_pad=2.5)
        figure.savefig(path, metadata={"Software": None})


def has_errors(result: dict[str, Any]) -> bool:
    """Whether the rows were split by what they fail by."""
    return any("errors" in run for run in result["runs"].values())


def draw_accuracy(axes: "Axes", result: dict[str, Any]) -> None:
    """A bar for each way of each run, with its interval."""
    names, place = [], 0.0
    for label, run in result["runs"].items():
        scores = {"none": run["accuracy"]} | {tool: each["second"] for tool, each in run.get("tools", {}).items()}
        for way, rate in scores.items():
            low, value, high = (100 * rate[key] for key in ("low", "value", "high"))
            axes.barh(place, value, color=WAYS[way], height=0.75)
            axes.plot([low, high], [place, place], color=INK, linewidth=1.1)
            axes.annotate(f"{value:.1f}", (high, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8.5)
            names.append((place, f"{label}, {'no tool' if way == 'none' else way}"))
            place += 1
        floors = {name: 100 * rate["value"] for name, rate in run["floors"].items()}
        for value in floors.values():
            axes.plot(value, place - len(scores), "|", color=FLOOR, markersize=9)
        place += 0.5
    axes.set_yticks([at for at, _ in names], [name for _, name in names], color=INK)
    axes.invert_yaxis()
    axes.set_xlim(0, 108)
    axes.set_xlabel("accuracy, % (ticks: floors)")
    bare(axes, "x")


def draw_errors(axes: "Axes", result: dict[str, Any]) -> None:
    """For each run, of all problems the share that fails by each kind."""
    for place, run in enumerate(result["runs"].values()):
        left = 0.0
        for kind, colour in KINDS.items():
            share = 100 * run["errors"][kind]["value"]
            axes.barh(place, share, left=left, color=colour, height=0.6, label=kind if place == 0 else None)
            if share > 3:
                axes.text(left + share / 2, place, f"{share:.0f}", ha="center", va="center", fontsize=8.5, color="white")
            left += share
    axes.set_yticks(range(len(result["runs"])), list(result["runs"]), color=INK)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("answers that fail, % of all problems, no tool")
    axes.legend(frameon=False, fontsize=8.5, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0), columnspacing=1.0)
    bare(axes, "x")


def draw_group(axes: "Axes", result: dict[str, Any], group: str) -> None:
    """Accuracy of every run and way within each value of a column."""
    from matplotlib.ticker import MaxNLocator

    for number, (label, run) in enumerate(result["runs"].items()):
        values = run["by"].get(group, {})
        for way in result["ways"]:
            points = [(int(value), 100 * rates[way]["value"]) for value, rates in values.items()]
            style: Any = {"color": WAYS[way], "linestyle": LINES[number % len(LINES)], "marker": "o", "markersize": 3.5}
            name = f"{label}, {'no tool' if way == 'none' else way}"
            axes.plot([x for x, _ in points], [y for _, y in points], label=name, **style)
    axes.set_ylim(-2, 102)
    axes.set_title(TITLES[group], loc="left", fontsize=9.5)
    axes.set_ylabel("accuracy, %")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=7.5, loc="best")
    bare(axes, "y")
