"""Rows of a table held against some of them: paired by problem and seed, tested exactly, corrected by Holm. Pure functions.

Two things vary. The test and the interval beside it take problems for what varies, and say something of these trained models; the
interval over seeds says something of the recipe, and with three seeds it is wide.
"""

import re
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from latent_lab.config import ConfigError
from latent_lab.grading.statistics import holm, paired_difference, sign_flip, t_interval
from latent_lab.report.study_page import interval, p_value
from latent_lab.report.table_rows import grid

Scored = Mapping[int, Mapping[str, bool]]
"""For each seed, whether each problem (by its id) was answered rightly."""
TOLD = "{}, gold plan given"
"""What a row is called where the gold plan's tokens were given to the same models."""


def bases(labels: Sequence[str], against: Sequence[str]) -> list[str]:
    """The labels that names stand for, whole or by their last word; :class:`ConfigError` where it is not exactly one."""
    found = []
    for name in against:
        fitting = [label for label in labels if name in (label, re.split(r"[-=, ]", label)[-1])]
        if len(fitting) != 1:
            rest = f"{'several rows are' if fitting else 'no row is'} called so; allowed: {'; '.join(labels)}"
            raise ConfigError("task.against", name, rest)
        found += fitting
    return found


def pairs(scored: Mapping[str, Scored], against: Sequence[str], told: Mapping[str, Scored]) -> list[dict[str, Any]]:
    """Every other row minus each base, and every row that was ``told`` the gold plan; Holm's correction is over all of them.

    Seeds that only one of the two has are left out; a pair without a common seed is left out itself.
    """
    held = []
    for place, base in enumerate(against):
        held += [(label, base, rows) for label, rows in scored.items() if label not in against[: place + 1]]
        held += [(TOLD.format(label), base, rows) for label, rows in told.items()]
    found = [pair(label, rows, base, scored[base]) for label, base, rows in held if set(rows) & set(scored[base])]
    adjusted = holm({str(place): each["p"] for place, each in enumerate(found)})
    return [{**each, "holm_p": adjusted[str(place)]} for place, each in enumerate(found)]


def pair(label: str, rows: Scored, base: str, others: Scored) -> dict[str, Any]:
    """One row minus another on the seeds that both have; every rate is a share of the problems."""
    seeds = sorted(set(rows) & set(others))
    names = list(others[seeds[0]])
    first = [fmean(others[seed][name] for seed in seeds) for name in names]
    second = [fmean(rows[seed][name] for seed in seeds) for name in names]
    beyond = [sum(rows[seed][name] - others[seed][name] for seed in seeds) for name in names]
    per_seed = [fmean(rows[seed][name] - others[seed][name] for name in names) for seed in seeds]
    return {
        "label": label,
        "against": base,
        "seeds": seeds,
        "difference": paired_difference(first, second).as_dict(),
        "per_seed": per_seed,
        "over_seeds": t_interval(per_seed, least=-1.0).as_dict() if len(seeds) > 1 else None,
        "p": sign_flip(beyond),
    }


def markdown(found: Sequence[dict[str, Any]]) -> list[str]:
    """The pairs as lines of a table in GitHub's Markdown, and what its numbers are."""
    head = ["difference", "points [95% over problems]", "each seed", "[95% over seeds]", "p", "p, Holm"]
    note = (
        "Differences in percentage points, problems and seeds paired. p: exact sign-flip test over problems, the answers of all "
        f"seeds to a problem together; Holm's correction is over these {len(found)}. Test and first interval speak of these "
        "trained models; whether training again would show the same, the seeds say."
    )
    return [*grid(head, map(cells_of, found)), "", note]


def cells_of(each: dict[str, Any]) -> list[str]:
    """The cells of a pair."""
    over = each["over_seeds"]
    return [
        f"`{each['label']}` - `{each['against']}`",
        interval(each["difference"], signed=True),
        ", ".join(f"{100 * one:+.1f}" for one in each["per_seed"]),
        interval(over, signed=True).partition(" ")[2] if over else "-",
        *(p_value(each[key]) for key in ("p", "holm_p")),
    ]
