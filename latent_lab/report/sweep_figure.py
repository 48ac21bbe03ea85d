"""Models along a setting: how right they are, what is read in their thoughts, and whether the answer follows an edit."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latent_lab.report.card_figure import FILL, FLOOR, SOFT, STYLE, bare

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Models = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""By label, then by value of the setting: a model as :func:`latent_lab.report.minds.model` makes it."""

PANELS = {
    "accuracy": "Answers exact",
    "probe": "A probe reads the digit",
    "oracle": "An oracle writes the column step",
    "edit": "The answer follows a donor's thought",
}
DASHED = {"accuracy": "another_problem", "edit": "worst"}
"""What else a panel shows, dashed."""
NOTES = {"accuracy": "dashed: with another problem's thoughts", "edit": "mean over columns; dashed: the worst one"}
COLOURS = (FILL, "#8e6bbf", "#5fad6d", "#9aa5b1")


def draw_sweep(path: Path, by: str, models: Models) -> None:
    """Draw one line a label over the values of a setting into a PNG file; the same models give the same bytes.

    Every seed is a dot. Panels that are measured at fewer than two values are left out. Orange lines are floors: the best
    constant or prior for readers, chance for edits.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    values = list(dict.fromkeys(at for line in models.values() for at in line))
    shown = [panel for panel in PANELS if len(measured(models, panel)) >= min(len(values), 2)]
    with rc_context(STYLE):
        figure = Figure(figsize=(3.3 * len(shown), 3.7), dpi=120, facecolor="white")
        for axes, panel in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            for number, (label, line) in enumerate(models.items()):
                draw_line(axes, panel, line, values, COLOURS[number % len(COLOURS)], label)
            axes.set_title(PANELS[panel], loc="left", fontsize=10, pad=18)
            axes.text(0, 1.02, NOTES.get(panel, ""), transform=axes.transAxes, fontsize=7.5, color=SOFT)
            axes.set_xticks(range(len(values)), values)
            axes.set_xlim(-0.4, len(values) - 0.6)
            axes.set_ylim(-3, 104)
            axes.set_xlabel(by)
            bare(axes, "y")
        figure.axes[0].set_ylabel("%")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper left", ncols=len(labels), frameon=False, fontsize=9, bbox_to_anchor=(0.02, 1.0))
        figure.text(0.99, 0.015, "dots: training seeds; orange: floors", ha="right", fontsize=7.5, color=SOFT)
        figure.tight_layout(rect=(0, 0.02, 1, 0.93), w_pad=1.5)
        figure.savefig(path, metadata={"Software": None})


def draw_line(
    axes: "Axes", panel: str, line: Mapping[str, Mapping[str, Any]], values: list[str], colour: str, label: str
) -> None:
    """One label's line in a panel, with its seeds, its floor, and what the panel shows beside it."""
    points = [(values.index(at), score) for at, each in line.items() if (score := score_of(each, panel))]
    axes.plot([x for x, _ in points], [100 * s["value"] for _, s in points], "-", color=colour, label=label, linewidth=1.8)
    for x, score in points:
        axes.plot([x] * len(score["by_seed"]), [100 * one for one in score["by_seed"]], "o", color=colour, markersize=3.6)
    beside = [(values.index(at), score) for at, each in line.items() if (score := score_of(each, DASHED.get(panel, "")))]
    axes.plot([x for x, _ in beside], [100 * s["value"] for _, s in beside], "--", color=colour, linewidth=1.1)
    floors = [(x, score["floor"]) for x, score in points if score.get("floor") is not None]
    axes.plot([x for x, _ in floors], [100 * floor for _, floor in floors], "-", color=FLOOR, linewidth=1.2)


def measured(models: Models, panel: str) -> set[str]:
    """The values of the setting that a panel has a score for."""
    return {at for line in models.values() for at, each in line.items() if score_of(each, panel)}


def score_of(model: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """A score of a model with ``value`` and ``by_seed``: ``edit`` is the mean over columns, ``worst`` the worst of them."""
    if name not in ("edit", "worst"):
        found: dict[str, Any] | None = model.get(name)
        return found
    pick = min if name == "worst" else lambda shares: sum(shares) / len(shares)
    by_seed = [pick(shares) for shares in zip(*(column["by_seed"] for column in model["columns"]), strict=True)]
    return {"value": sum(by_seed) / len(by_seed), "by_seed": by_seed, "floor": model.get("chance") if name == "edit" else None}
