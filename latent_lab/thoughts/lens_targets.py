"""Patchscopes (arXiv 2401.06102): into which layer of the prompt a state is best put, found on training problems."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from latent_lab.thoughts.lens_asked import Asked, added_up
from latent_lab.thoughts.lens_kinds import Scores

MOST_TARGETS = 6
"""Target layers that are tried, evenly spread over the depth."""
STATES = 6_000
"""States that are put into the prompt, over all pairs of layers; as many problems are looked at as this leaves room for."""
LEAST_PROBLEMS = 10


def target_layers(num_blocks: int) -> tuple[int, ...]:
    """Layers a state may be put into: 0 (the input embedding) to the last but one, after which no other token sees it."""
    most = min(MOST_TARGETS, num_blocks)
    return tuple(dict.fromkeys(round(i * (num_blocks - 1) / max(most - 1, 1)) for i in range(most)))


def num_problems(layers: Sequence[int], targets: Sequence[int], num_slots: int, there: int) -> int:
    """Problems to look at, of those that are there."""
    return min(there, max(LEAST_PROBLEMS, STATES // max(len(layers) * len(targets) * num_slots, 1)))


def sweep(ask: Asked, scopes: Mapping[int, Scores], layers: Sequence[int], fields: Sequence[str]) -> dict[str, Any]:
    """Put states of training problems into each target layer; ``scopes`` are what is then said, by target.

    ``chosen`` is for each layer the target with the highest reciprocal rank above that of another problem's step (as a gain, mean
    of the fields); of equals the first. ``fields`` has of each field ``[layers][targets]`` grids: ``n``, ``hit1``, ``mrr`` and,
    with ``floor_`` before the name, the two for another problem's step.
    """
    names = ("hit1", "mrr", "floor_hit1", "floor_mrr")
    grids: dict[str, dict[str, list[list[Any]]]] = {field: {name: [] for name in ("n", *names)} for field in fields}
    chosen, targets = [], list(scopes)
    for layer in layers:
        found = [added_up(ask, ask.look(scope, layer), fields) for scope in scopes.values()]
        for field, grid in grids.items():
            grid["n"].append([int(each[field][0].sum()) for each in found])
            for row, name in enumerate(names, start=1):
                grid[name].append([share(each[field], row) for each in found])
        gains = [mean_gain(each) for each in found]
        chosen.append(targets[gains.index(max(gains))])
    return {"targets": targets, "layers": list(layers), "n_problems": ask.num_problems, "chosen": chosen, "fields": grids}


def share(marks: Tensor, row: int) -> float | None:
    """Mean of a row of marks ``[5, problems]``; None where nothing was asked."""
    count = float(marks[0].sum())
    return round(float(marks[row].sum()) / count, 4) if count else None


def mean_gain(marks: dict[str, Tensor]) -> float:
    """Reciprocal rank above that of another problem's step, as a gain, mean of the fields that were asked about."""
    gains = []
    for each in marks.values():
        count, _, own, _, others = each.sum(1).tolist()
        if count and others < count:
            gains.append((own - others) / (count - others))
    return round(sum(gains) / len(gains), 6) if gains else 0.0
