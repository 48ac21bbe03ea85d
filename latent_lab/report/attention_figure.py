"""Attention on planning tokens and on the text around them, a square for each head."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latent_lab.report.card_figure import SOFT, STYLE

PANELS = {"plan": "on planning tokens", "matched": "on as many tokens around them"}

MOST_TICKS = 12


def draw(path: Path, heads: Sequence[Mapping[str, Any]]) -> None:
    """Draw both panels on one scale into a PNG file; the same numbers give the same bytes."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    layers, columns = (1 + max(head[name] for head in heads) for name in ("layer", "head"))
    most = max([head[panel] for head in heads for panel in PANELS] + [1e-9])
    with rc_context(STYLE):
        figure = Figure(figsize=(2 * max(1.6, 0.3 * columns) + 2.2, max(1.6, 0.3 * layers) + 1.2), dpi=120, facecolor="white")
        for axes, (panel, title) in zip(figure.subplots(1, 2), PANELS.items(), strict=True):
            values = [[0.0] * columns for _ in range(layers)]
            for head in heads:
                values[head["layer"]][head["head"]] = head[panel]
            shown = axes.imshow(values, vmin=0, vmax=most, cmap="Blues", aspect="auto", interpolation="nearest")
            axes.set_title(title, loc="left", fontsize=9)
            axes.set_xlabel("head")
            axes.set_xticks(range(0, columns, -(-columns // MOST_TICKS)))
            axes.set_yticks(range(0, layers, -(-layers // MOST_TICKS)))
        figure.axes[0].set_ylabel("layer")
        figure.tight_layout(rect=(0, 0.04, 1, 1))
        figure.colorbar(shown, ax=figure.axes[:2], label="share of a text token's attention")
        figure.text(0.01, 0.01, "means over text tokens of the gold chains", fontsize=7, color=SOFT)
        figure.savefig(path, metadata={"Software": None})
