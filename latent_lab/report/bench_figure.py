"""How a training step's time grows, ours beside the plain step."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from latent_lab.report.card_figure import FILL, FLOOR, SOFT, STYLE, bare

TITLES = {"rows": "rows in the batch", "slots": "thoughts", "question": "tokens of the question", "width": "width of the model"}

TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)


def draw_growth(path: Path, growth: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """Draw one panel a line of measurements, ``{at, ours, plain}`` in seconds, on logarithmic axes, into a PNG file."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    seconds = [point[side] for points in growth.values() for point in points for side in ("plain", "ours")]
    ticks = [tick for tick in TICKS if min(seconds) * 0.7 <= tick <= max(seconds) * 1.4]
    with rc_context(STYLE):
        figure = Figure(figsize=(3.2 * len(growth), 3.4), dpi=120, facecolor="white")
        panels = figure.subplots(1, len(growth), squeeze=False, sharey=True)[0]
        for axes, (name, points) in zip(panels, growth.items(), strict=True):
            at = [point["at"] for point in points]
            axes.plot(at, [point["plain"] for point in points], "o-", color=FLOOR, label="plain fine-tuning step", markersize=3.6)
            axes.plot(at, [point["ours"] for point in points], "o-", color=FILL, label="step with thoughts", markersize=3.6)
            axes.set_xscale("symlog" if 0 in at else "log", base=2)
            axes.set_yscale("log")
            axes.set_xticks(at, [f"{value:g}" for value in at])
            axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.minorticks_off()
            axes.set_xlabel(TITLES.get(name, name))
            bare(axes, "y")
        figure.axes[0].set_ylabel("seconds a step")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper left", ncols=2, frameon=False, fontsize=9, bbox_to_anchor=(0.02, 1.0))
        figure.text(0.99, 0.015, "medians; both sides timed in turn", ha="right", fontsize=7.5, color=SOFT)
        figure.tight_layout(rect=(0, 0.02, 1, 0.92), w_pad=1.5)
        figure.savefig(path, metadata={"Software": None})
