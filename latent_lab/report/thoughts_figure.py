"""Figures about thoughts: sources beside the real thought, the matrix of thoughts and steps, edits, and models compared."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latent_lab.report.card_figure import FILL, FLOOR, INK, SOFT, STYLE, bare
from latent_lab.report.matrix_figure import draw_panel, size
from latent_lab.report.thoughts_cells import score_in, share, value, words
from latent_lab.report.thoughts_edited import site_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KEEP = "#9aa5b1"
WIDTH = 5.2
"""Of most figures, in inches."""
OUTCOMES = {"target": ("composed target", FILL), "donor": ("donor's answer", FLOOR), "keep": ("unchanged", KEEP)}
"""What an answer becomes, and its colour."""
OTHER_MODEL = "#8e6bbf"


def draw_thoughts(result: dict[str, Any], folder: Path) -> list[Path]:
    """Draw what a ``task=thoughts`` result holds into PNG files of ``folder``, and return their paths.

    ``oracle.png``, ``probes.png``, ``matrix-FIELD.png``, ``numbers.png`` and ``columns-SITE.png``, each narrow enough
    to be read on a phone; what was not measured is not drawn. The same result gives the same bytes.
    """
    from matplotlib import rc_context

    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    with rc_context(STYLE):
        for name, figure in figures(result):
            figure.tight_layout()
            drawn.append(folder / f"{re.sub(r'[^a-z0-9-]+', '_', name.lower())}.png")
            figure.savefig(drawn[-1], metadata={"Software": None})
    return drawn


def figures(result: dict[str, Any]) -> "Iterator[tuple[str, Figure]]":
    """Each figure with its name."""
    oracle, probes, edits = (result.get(part) or {} for part in ("oracle", "probes", "interventions"))
    if bars := oracle_bars(oracle):
        yield "oracle", oracle_figure(bars)
    if fields := {name: each for name, each in probes.get("fields", {}).items() if value(each) >= 0}:
        yield "probes", probe_figure(fields)
    for field, each in probes.get("matrix", {}).items():
        if any(each.get("value") or []):
            yield f"matrix-{field}", matrix(words(field), each, probes.get("own") or [])
    counts = edits.get("num_thoughts", {})
    if points := sorted((int(count), score) for count, score in counts.items() if value(score) >= 0):
        yield "numbers", numbers(points, result.get("store", {}).get("slots"))
    for site, each in edits.get("interchange", {}).items():
        if found := [column for column in each.get("columns", []) if value(column.get("target")) >= 0]:
            yield f"columns-{site}", columns(site_name(site), found, each.get("chance"))


def oracle_bars(oracle: dict[str, Any]) -> list[tuple[str, Any, str]]:
    """Name, score and colour of the real thought and of every source and floor beside it."""
    key = "step_exact_match" if value(oracle.get("column_step_exact_match")) < 0 else "column_step_exact_match"
    sources = {"the thought itself": oracle} | {words(n): each for n, each in oracle.get("sources", {}).items() if n != "real"}
    sources |= {words(name): each for name, each in oracle.get("floors", {}).items() if words(name) not in sources}
    shown = {name: each[key] for name, each in sources.items() if value(each.get(key)) >= 0}
    return [(name, score, FILL if sources[name] is oracle else FLOOR) for name, score in shown.items()]


def oracle_figure(bars: Sequence[tuple[str, Any, str]]) -> "Figure":
    """How often the oracle is right, source by source."""
    figure = new_figure(WIDTH, 1.1 + 0.26 * len(bars))
    axes = figure.subplots()
    horizontal(axes, bars)
    axes.set_title("Oracle: exact steps, by source", loc="left", fontsize=10)
    return figure


def probe_figure(fields: dict[str, Any]) -> "Figure":
    """How often a linear probe is right, field by field, beside the field's best floor."""
    figure = new_figure(WIDTH, 1.1 + 0.4 * len(fields))
    axes = figure.subplots()
    horizontal(axes, [(words(name), each, FILL) for name, each in fields.items()])
    for place, each in enumerate(fields.values()):
        if value(each.get("floor")) >= 0:
            axes.plot([100 * value(each["floor"])] * 2, [place - 0.42, place + 0.42], color=FLOOR, linewidth=2.5)
    axes.set_title("Linear probe, by field (orange: its best floor)", loc="left", fontsize=10)
    return figure


def horizontal(axes: "Axes", bars: Sequence[tuple[str, Any, str]]) -> None:
    """Bars with intervals and numbers; ``bars`` are ``(name, score, colour)``."""
    for place, (_, score, colour) in enumerate(bars):
        low, high = ends(score)
        axes.barh(place, 100 * value(score), color=colour, height=0.7)
        axes.plot([100 * low, 100 * high], [place, place], color=INK, linewidth=1.1)
        text: Any = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "fontsize": 8.5}
        axes.annotate(f"{100 * value(score):.1f}", (100 * high, place), **text)
    axes.set_yticks(range(len(bars)), [name for name, _, _ in bars], color=INK)
    axes.invert_yaxis()
    axes.set_xlim(0, 112)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel("exact, %")
    bare(axes, "x")


def ends(score: Any) -> tuple[float, float]:
    """The ends of a score's interval; the value twice where it has none."""
    score = score_in(score)
    if isinstance(score, dict) and score.get("low") is not None and score.get("high") is not None:
        return score["low"], score["high"]
    return value(score), value(score)


def matrix(title: str, found: dict[str, Any], own: Sequence[int | None]) -> "Figure":
    """How well each step is read from each slot."""
    figure = new_figure(*size(found))
    draw_panel(figure.subplots(), title, found, own)
    return figure


def numbers(points: Sequence[tuple[int, Any]], trained: int | None) -> "Figure":
    """Accuracy against the number of thoughts; ``trained`` is how many the model was trained with."""
    figure = new_figure(WIDTH, 3.0)
    axes = figure.subplots()
    x = [count for count, _ in points]
    axes.plot(x, [100 * value(score) for _, score in points], color=FILL, marker="o", linewidth=2)
    axes.fill_between(x, [100 * ends(s)[0] for _, s in points], [100 * ends(s)[1] for _, s in points], color=FILL, alpha=0.18)
    if trained in x:
        axes.axvline(trained, color=FLOOR, linewidth=1, linestyle=":")
        axes.annotate(
            "as trained", (trained, 4), xytext=(-5, 0), textcoords="offset points", fontsize=8.5, color=SOFT, ha="right"
        )
    axes.set_xticks(x)
    axes.set_ylim(-2, 104)
    axes.set_xlabel("number of thoughts")
    axes.set_ylabel("answers exact, %")
    bare(axes, "y")
    return figure


def columns(title: str, found: Sequence[dict[str, Any]], chance: float | None) -> "Figure":
    """Column by column, answers that become the composed target, the donor's answer, or stay."""
    figure = new_figure(WIDTH, 3.2)
    axes = figure.subplots()
    for offset, (key, (label, colour)) in zip((-0.27, 0.0, 0.27), OUTCOMES.items(), strict=True):
        for place, column in enumerate(found):
            score = column.get(key)
            if value(score) >= 0:
                axes.bar(place + offset, 100 * value(score), 0.25, color=colour)
                axes.plot([place + offset] * 2, [100 * end for end in ends(score)], color=INK, linewidth=1)
        axes.bar(0, 0, color=colour, label=label)
    if chance is not None:
        axes.axhline(100 * chance, color=SOFT, linewidth=1, linestyle=":")
    axes.set_xticks(range(len(found)), [str(column.get("slot", k + 1)) for k, column in enumerate(found)])
    axes.set_xlim(-0.6, len(found) - 0.4)
    axes.set_ylim(0, 104)
    axes.set_title(f"Exchanged: {title}", loc="left", fontsize=10, pad=22)
    axes.set_xlabel("thought exchanged" + (" (dotted: chance)" if chance is not None else ""))
    axes.set_ylabel("answers, %")
    axes.legend(
        frameon=False, fontsize=8, ncols=3, loc="lower left", bbox_to_anchor=(-0.02, 0.99), columnspacing=1.0, borderpad=0
    )
    bare(axes, "y")
    return figure


def flagship(path: Path, models: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw models beside each other, two that are equally right: what can be read in their thoughts, and what can be edited.

    ``models`` maps a model's name to shares from 0 to 1, in the order drawn. Each is a score ``{value, low, high}``, whose
    interval is over training seeds, and which may bring its best ``floor``::

        {"accuracy": score, "probe": score, "oracle": score, "columns": [score, ...], "chance": 1 / 9, "seeds": 3}

    ``accuracy`` and ``columns`` (answers that become the composed target, column by column) are needed, the readers are not.
    ValueError where a model lacks them.
    """
    from matplotlib import rc_context

    if not models or any(value(each.get("accuracy")) < 0 or not each.get("columns") for each in models.values()):
        raise ValueError(f"models={list(models)}: give one or more, each with a score 'accuracy' and scores 'columns'")
    kinds = [name for name in ("accuracy", "probe", "oracle") if any(value(each.get(name)) >= 0 for each in models.values())]
    titles = {"accuracy": "answers\nexact", "probe": "digits a\nprobe reads", "oracle": "steps an\noracle writes"}
    most = max(len(each["columns"]) for each in models.values())
    with rc_context(STYLE):
        figure = new_figure(10.5, 4.1)
        left, right = figure.subplots(1, 2, width_ratios=[len(kinds), most + 0.5])
        paired(left, models, [[each.get(kind) for kind in kinds] for each in models.values()])
        left.set_xticks(range(len(kinds)), [titles[kind] for kind in kinds], color=INK)
        left.set_title("Answers, and what can be read", loc="left", fontsize=10.5)
        left.set_ylabel("%")
        paired(right, models, [list(each["columns"]) for each in models.values()])
        chances = [each["chance"] for each in models.values() if each.get("chance") is not None]
        if chances:
            right.axhline(100 * chances[0], color=FLOOR, linewidth=1.6, zorder=3)
        right.set_xticks(range(most), [f"thought {k + 1}" for k in range(most)], color=INK)
        right.set_title("What can be edited: the answer follows a donor's thought", loc="left", fontsize=10.5)
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper left", ncols=len(labels), frameon=False, fontsize=9, bbox_to_anchor=(0.04, 1.0))
        seeds = sorted({each["seeds"] for each in models.values() if each.get("seeds")})
        counted = f"{' or '.join(map(str, seeds))} training seeds" if seeds else "training seeds"
        figure.text(
            0.99, 0.012, f"whiskers span the 95% intervals of {counted}; orange lines: floors", ha="right", fontsize=8, color=SOFT
        )
        figure.tight_layout(rect=(0, 0.03, 1, 0.93), w_pad=2)
        figure.savefig(path, metadata={"Software": None})


def paired(axes: "Axes", models: Mapping[str, Any], scores: Sequence[Sequence[Any]]) -> None:
    """Bars of each model side by side, ``scores[model][place]``, with their intervals and floors."""
    colours = [FILL, OTHER_MODEL, KEEP, SOFT]
    width = 0.8 / len(models)
    for number, (name, line) in enumerate(zip(models, scores, strict=True)):
        for place, score in enumerate(line):
            if value(score) < 0:
                continue
            x, (low, high) = place + (number - (len(models) - 1) / 2) * width, ends(score)
            axes.bar(x, 100 * value(score), width * 0.92, color=colours[number % 4], label=name if place == 0 else None)
            axes.plot([x, x], [100 * low, 100 * high], color=INK, linewidth=1.2)
            text: Any = {"xytext": (0, 2), "textcoords": "offset points", "ha": "center", "fontsize": 8}
            axes.annotate(share(value(score)), (x, 100 * high), **text)
            floor = value(score.get("floor")) if isinstance(score, dict) else -1
            if floor >= 0:
                axes.plot([x - width * 0.46, x + width * 0.46], [100 * floor] * 2, color=FLOOR, linewidth=2.2, zorder=3)
    axes.set_ylim(0, 110)
    axes.set_yticks(range(0, 101, 20))
    bare(axes, "y")


def new_figure(width: float, height: float) -> "Figure":
    """A white figure; ``width`` and ``height`` in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=120, facecolor="white")
