"""Which slot holds which step: the matrix of all pairs, and what follows from it."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from latent_lab.thoughts.probe_exam import STEP, Exam, Reading, majority_hits, whole_labels
from latent_lab.thoughts.probe_fit import Constant
from latent_lab.thoughts.probe_scores import gain, grid, interval, rate
from latent_lab.thoughts.probe_targets import NONE

if TYPE_CHECKING:
    from latent_lab.thoughts.probes import Probes

Pair = tuple[int, int]


def matrix_report(exam: Exam, probes: "Probes", readings: Mapping[Pair, Reading]) -> dict[str, Any]:
    """The matrix M[k][j] (row: slot k, column: step j) for each field and, as ``whole_step``, for all fields of a step at once.

    ``readings`` are of steps that count for the strict score (:meth:`Grammar.is_counted`). Returns:

    - ``own``: the step (from 1) that each slot stands for;
    - ``matrix``: by field ``value``, ``low``, ``high``, ``n``, ``floor`` (the better of the best constant and the training
      majority of that position) and ``gain`` above it, ``[slots][steps]``; None where a field does not vary;
    - ``position``: D = mean_k M[k, own] - mean_k max_{j not own} M[k, j] of the whole step, an interval; ``position_by_field``;
      and ``position_gain``, by field the same of the gains, which do not depend on how easy a step is;
    - ``position_equal_n``: D of the whole step over the ``n`` problems alone that have every step in question, so that all cells
      are of the same problems;
    - ``position_selectivity``: M[k, own] - max_{j not own} M[k, j] of the whole step for each slot;
    - ``offsets``: by o, the step's distance from the slot's own, the mean over ``n`` slots of M[k, own + o] of the whole step;
    - ``order``: for each slot the step (from 1) it is read best for, argmax_j M[k, j], ``order_by_gain``, and ``slot_of_step``
      the other way around; its own step wins a tie.
    """
    own = probes.slots_to_steps
    matrix, position, by_gain = {}, {}, {}
    whole: dict[Pair, Tensor] = {}
    whole_gain: dict[Pair, Tensor] = {}
    for field in (*probes.values, STEP):
        drawn, gains, cells = field_cells(exam, probes, readings, field)
        shape = (1 + max(k for k, _ in readings), 1 + max(j for _, j in readings))
        matrix[field] = {key: grid(cells, shape, key) for key in ("value", "low", "high", "n", "floor", "gain")}
        position[field], by_gain[field] = (interval(diagonal(each, own)) for each in (drawn, gains))
        if field == STEP:
            whole, whole_gain = drawn, gains
    slots = range(len(own))
    return {
        "own": [None if step is None else step + 1 for step in own],
        "matrix": matrix,
        "position": position[STEP],
        "position_by_field": position,
        "position_gain": by_gain,
        "position_equal_n": equal_n(exam, readings, whole, own),
        "position_selectivity": [interval(diagonal({p: m for p, m in whole.items() if p[0] == k}, own)) for k in slots],
        "offsets": offsets(whole, own),
        "order": [argmax_step(whole, k, own) for k in slots],
        "order_by_gain": [argmax_step(whole_gain, k, own) for k in slots],
        "slot_of_step": [argmax_slot(whole, j, own) for j in range(exam.y_test.num_steps)],
    }


def field_cells(
    exam: Exam, probes: "Probes", readings: Mapping[Pair, Reading], field: str
) -> tuple[dict[Pair, Tensor], dict[Pair, Tensor], dict[Pair, dict[str, Any]]]:
    """Of each pair where a field varies: its accuracy and its gain ``[1 + resamples]``, and its cell of the matrix."""
    drawn, gains, cells = {}, {}, {}
    for (slot, step), reading in readings.items():
        rows = exam.rows(slot, step) & exam.y_test.is_counted[:, step]
        labels = {name: torch.where(rows, y[:, step], NONE) for name, y in exam.y_test.labels.items()}
        names = list(labels) if field == STEP else [field]
        if not any(varies(probes, slot, step, name, labels[name]) for name in names):
            continue
        counts = reading.counts[field]
        prior = exam.prior_reading(probes.at(slot, step), step, rows).hits[field]
        constant = majority_hits([whole_labels(labels, exam.y_test.is_whole[:, step]) if field == STEP else labels[field]])
        values = exam.resampler.means(torch.stack([reading.hits[field], prior, constant]), counts)
        drawn[slot, step], gains[slot, step] = values[0], gain(values[0], values[1:])
        floor = float(values[1:, 0].max())
        cells[slot, step] = {**rate(values[0], counts), "floor": floor, "gain": finite(gains[slot, step][0])}
    return drawn, gains, cells


def varies(probes: "Probes", slot: int, step: int, field: str, labels: Tensor) -> bool:
    """Whether there is something to tell apart, in training and among the test labels ``[problems]``."""
    return not isinstance(probes.parts[slot, step, field], Constant) and len(labels[labels >= 0].unique()) > 1


def finite(value: Tensor) -> float | None:
    """A number that JSON can hold."""
    return float(value) if math.isfinite(value) else None


def diagonal(drawn: Mapping[Pair, Tensor], own: tuple[int | None, ...]) -> Tensor:
    """D ``[1 + resamples]``: mean over slots of the own cell less the best other cell; slots that lack either are left out."""
    above = []
    for slot, step in enumerate(own):
        others = [values.nan_to_num(nan=-math.inf) for (k, j), values in drawn.items() if k == slot and j != step]
        if step is not None and (slot, step) in drawn and others:
            above.append(drawn[slot, step] - torch.stack(others).max(0).values)
    return torch.stack(above).mean(0) if above else torch.tensor([math.nan])


def equal_n(
    exam: Exam, readings: Mapping[Pair, Reading], whole: Mapping[Pair, Tensor], own: tuple[int | None, ...]
) -> dict[str, Any]:
    """D of the whole step over the problems that have all steps with a cell, an interval, and their number."""
    counts = [readings[pair].counts[STEP] for pair in whole]
    every = torch.stack(counts).min(0).values if counts else torch.zeros(exam.resampler.num_problems)
    if not every.any():
        return {**interval(torch.tensor([math.nan])), "n": 0}
    drawn = {pair: exam.resampler.means(readings[pair].hits[STEP] * every, every) for pair in whole}
    return {**interval(diagonal(drawn, own)), "n": int(every.sum())}


def offsets(drawn: Mapping[Pair, Tensor], own: tuple[int | None, ...]) -> dict[str, Any]:
    """By the step's distance from the slot's own the mean of the cells, an interval, and how many cells."""
    found: dict[int, list[Tensor]] = {}
    for (slot, step), values in drawn.items():
        mine = own[slot]
        if mine is not None and math.isfinite(values[0]):
            found.setdefault(step - mine, []).append(values)
    return {str(o): {**interval(torch.stack(cells).mean(0)), "n": len(cells)} for o, cells in sorted(found.items())}


def argmax_step(drawn: Mapping[Pair, Tensor], slot: int, own: tuple[int | None, ...]) -> int | None:
    """The step, from 1, with the largest cell in a slot's row; None where the row is empty."""
    row = {j: float(values[0]) for (k, j), values in drawn.items() if k == slot and math.isfinite(values[0])}
    return 1 + max(row, key=lambda j: (row[j], j == own[slot], -j)) if row else None


def argmax_slot(drawn: Mapping[Pair, Tensor], step: int, own: tuple[int | None, ...]) -> int | None:
    """The slot, from 1, with the largest cell in a step's column; None where the column is empty."""
    column = {k: float(values[0]) for (k, j), values in drawn.items() if j == step and math.isfinite(values[0])}
    return 1 + max(column, key=lambda k: (column[k], own[k] == step, -k)) if column else None
