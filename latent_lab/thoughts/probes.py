"""Linear probes of thoughts: what can be read by a linear map, and how much of that is the thought's merit.

One fit for all (slot, step, field) of a layer, in closed form (``probe_fit``). Every accuracy stands beside its floors: the best
constant, the training majority of that position, the same probe on another problem's thought, on the question itself, and on
random labels by type of step (the control task, whose accuracy is subtracted for the selectivity).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latent_lab.thoughts.grammar import Grammar
from latent_lab.thoughts.probe_exam import STEP, Exam, Reading, held_out, majority_hits, standard, whole_labels
from latent_lab.thoughts.probe_fit import Constant, Discriminant, Probe, fit_all
from latent_lab.thoughts.probe_matrix import matrix_report
from latent_lab.thoughts.probe_scores import Resampler, gain, interval, rate
from latent_lab.thoughts.probe_targets import NONE, Targets, check_apart, targets
from latent_lab.thoughts.scores import score
from latent_lab.thoughts.sources import Origins
from latent_lab.thoughts.store import ThoughtStore

INFORMATION_FREE = ("majority", "position_prior", "shuffled", "shuffled_in_stratum")
"""The floors that ``floor`` is the largest of. The input baseline and the control task stand beside them: the one knows the
problem, the other asks something else."""
FEWEST_FOR_BEST = 50
"""Left-out training labels that a pair of slot and step needs to be chosen as a field's best."""


@dataclass(frozen=True)
class Probes:
    """Fitted probes of one layer."""

    layer: int
    values: dict[str, tuple[str, ...]]
    """For each field the values, in the order of :meth:`read`'s columns."""
    slots_to_steps: tuple[int | None, ...]
    """For each slot the number (from 0) of the step it stands for."""
    mean: Tensor
    """``[slots, width]``: of training problems."""
    scale: Tensor
    """``[slots, width]``: standard deviations; infinite where a component does not vary."""
    parts: dict[tuple[int, int, str], Probe]
    """By slot, step and field."""
    name: str = "linear probe"

    def at(self, slot: int, step: int) -> dict[str, Probe]:
        """The probes of one step from one slot, by field."""
        return {field: self.parts[slot, step, field] for field in self.values}

    def read(self, slot: int, field: str, vectors: Tensor, step: int | None = None) -> Tensor:
        """Read a field of a step (default: the one the slot stands for) from vectors as they are stored.

        Returns log-probabilities ``[n, values]`` of vectors ``[n, width]``. ValueError for what no probe was fitted for.
        """
        if field not in self.values:
            raise ValueError(f"field={field}: allowed are {', '.join(self.values)}")
        step = self.slots_to_steps[slot] if step is None and 0 <= slot < len(self.slots_to_steps) else step
        if step is None or (slot, step, field) not in self.parts:
            slots, steps = len(self.slots_to_steps), len({j for _, j, _ in self.parts})
            raise ValueError(f"slot={slot}, step={step}: allowed are slots 0 to {slots - 1} and steps 0 to {steps - 1}")
        return self.parts[slot, step, field].log_probabilities((vectors.float() - self.mean[slot]) / self.scale[slot])

    def say(self, thoughts: Tensor) -> list[tuple[str, float]]:
        """For each slot of one problem's thoughts ``[slots, width]``: the fields of its step in words, and the least probability
        among them; an empty text for a slot that stands for no step."""
        said = []
        for slot, step in enumerate(self.slots_to_steps[: len(thoughts)]):
            words, sure = [], 1.0
            for field, values in self.values.items() if step is not None else ():
                log_p = self.read(slot, field, thoughts[slot : slot + 1])[0]
                words.append(f"{field} {values[int(log_p.argmax())]}")
                sure = min(sure, float(log_p.max().exp()))
            said.append((", ".join(words), sure if words else 0.0))
        return said


def steps_right(probes: Probes, store: ThoughtStore, y: Targets) -> dict[tuple[str, int], float]:
    """Of each step that counts for the strict score, by problem and step, whether all its fields are read right: 1.0 or 0.0.

    A step is read from the last of its slots, and every step that has one is here: those whose text an oracle is held to. What
    says something that training never said cannot be read right.
    """
    states = store.layer(probes.layer)
    found: dict[tuple[str, int], float] = {}
    slot_of = {step: slot for slot, step in enumerate(probes.slots_to_steps[: states.shape[1]]) if step is not None}
    for step, slot in slot_of.items():
        rows = y.is_counted[:, step] & (store.num_slots > slot)
        right = y.is_whole[:, step].clone()
        for field, labels in y.labels.items():
            asked = rows & (labels[:, step] >= 0)
            right[asked] &= probes.read(slot, field, states[asked, slot], step).argmax(1) == labels[asked, step]
        found |= {(y.problems[i], step): float(right[i]) for i in rows.nonzero()[:, 0].tolist()}
    return found


def in_order(num_slots: int, num_steps: int) -> tuple[int | None, ...]:
    """Slot k stands for step k; None past the last step."""
    return tuple(k if k < num_steps else None for k in range(num_slots))


def fit_probes(
    train: ThoughtStore,
    grammar: Grammar,
    layer: int,
    *,
    seed: int = 0,
    slots_to_steps: Sequence[int | None] | None = None,
    labels: Targets | None = None,
) -> Probes:
    """Fit probes for every slot, step and field of a layer; everything that is chosen is chosen on training problems.

    ``slots_to_steps`` says which step (from 0) each slot stands for; by default slot k for step k. With c slots a step it is
    ``[0, 0, 1, 1, ...]``. ``labels`` are the training steps', where they are known already.
    """
    states = train.layer(layer)
    y = labels or targets(train, grammar, most_steps(train))
    given = tuple(slots_to_steps) if slots_to_steps is not None else in_order(states.shape[1], y.num_steps)
    if len(given) != states.shape[1] or any(step is not None and not 0 <= step < y.num_steps for step in given):
        raise ValueError(
            f"slots_to_steps={list(given)}: give for each of {states.shape[1]} slots a step from 0 to {y.num_steps - 1} or null"
        )
    left_out, sizes = held_out(len(states), seed), {field: len(values) for field, values in grammar.values.items()}
    means, scales = [], []
    parts: dict[tuple[int, int, str], Probe] = {}
    for slot in range(states.shape[1]):
        there = train.num_slots > slot
        mean, scale = standard(states[there, slot])
        vectors = (states[:, slot] - mean) / scale
        for step in range(y.num_steps):
            asked = {field: torch.where(there, known[:, step], NONE) for field, known in y.labels.items()}
            parts |= {(slot, step, field): probe for field, probe in fit_all(vectors, asked, sizes, left_out).items()}
        means.append(mean)
        scales.append(scale)
    return Probes(layer, dict(grammar.values), given, torch.stack(means), torch.stack(scales), parts)


def most_steps(train: ThoughtStore) -> int:
    """Steps of the longest training chain."""
    return max((len(row["steps"]) for row in train.rows), default=0)


def probe_report(
    train: ThoughtStore,
    test: ThoughtStore,
    grammar: Grammar,
    layers: Sequence[int],
    *,
    seed: int = 0,
    inputs_train: Tensor | None = None,
    inputs_test: Tensor | None = None,
    slots_to_steps: Sequence[int | None] | None = None,
    start: Tensor | None = None,
    other_seed: ThoughtStore | None = None,
) -> dict[str, Any]:
    """Probe layers on test problems; ready for JSON. Raises StoreError where the stores share a problem.

    ``inputs_train`` and ``inputs_test`` ``[problems, features]`` are what the input baseline reads; by default which token stands
    at which place of the question. ``start`` ``[test problems, width]`` (the states at the start marker) and ``other_seed`` (the
    thoughts of a model trained with another seed about the same test problems) are sources beside those that the stores give.

    The first layer's report is at the top, all are under ``layers`` by number. Slots and steps are counted from 1. Of a layer:

    - ``fields``: for each field a score ``{value, n, low, high, clusters, floors, floor, gain, selectivity, above_input, bits}``
      at its best ``slot`` and ``step`` (the pair with the highest gain on left-out *training* problems), the same for every slot
      at its own step (``slots``), and over all of these together (``all``). ``bits`` is the V-information: how much fewer bits
      the right value costs than by the training shares of that position (``entropy``). ``selectivity`` is the accuracy less that
      on random labels, which hang on what ``control_by`` says. Where a field does not vary, ``value`` is None: ``why`` says so.
    - ``whole_step``: the same for all fields of a step at once, of all steps where something varies.
    - ``column_step_exact_match``: the same on the steps that count for the strict score and no others (:func:`steps_right`), as
      an oracle's score of that name is; the ceiling it is held against.
    - ``sources``: for each source the accuracy of each field and of the ``whole_step`` over all slots, and ``bits``.
    - ``matrix``, ``position``, ``order`` and more: see :func:`latent_lab.thoughts.probe_matrix.matrix_report`.
    """
    check_apart(train, test)
    num_steps = most_steps(train)
    y_test = targets(test, grammar, num_steps)
    exam = Exam(
        train,
        test,
        targets(train, grammar, num_steps),
        y_test,
        dict(grammar.values),
        seed,
        Resampler(len(test.rows), seed),
        Origins(test, y_test, start, other_seed),
        inputs_train,
        inputs_test,
    )
    found = {}
    for layer in layers:
        probes = fit_probes(train, grammar, layer, seed=seed, slots_to_steps=slots_to_steps, labels=exam.y_train)
        found[str(layer)] = layer_report(exam, probes)
    return {"layer": layers[0], **found[str(layers[0])], "layers": found}


def layer_report(exam: Exam, probes: Probes) -> dict[str, Any]:
    """What :func:`probe_report` says of one layer."""
    train, test = exam.train.layer(probes.layer), exam.test.layer(probes.layer)
    num_slots = min(train.shape[1], test.shape[1])
    own = [(slot, step) for slot, step in enumerate(probes.slots_to_steps[:num_slots]) if step is not None]
    best = {field: best_pair(probes, field, num_slots) for field in probes.values}
    cells = {}
    for slot, step in dict.fromkeys([*own, *(pair for pair in best.values() if pair)]):
        cells[slot, step] = Cell.of(exam, probes, (slot, step), train[:, slot], test[:, slot])
    fields = {}
    for field, pair in best.items():
        slots = [{**place(each), **cells[each].record(exam, field)} for each in own]
        at_best = {**place(pair), **cells[pair].record(exam, field)} if pair else nothing("no position where it varies")
        fields[field] = {**at_best, "slots": slots, "all": record(exam, [cells[each] for each in own], field)}
    readings = {}
    for slot in range(num_slots):
        vectors = (test[:, slot] - probes.mean[slot]) / probes.scale[slot]
        for step in range(exam.y_test.num_steps):
            rows = exam.rows(slot, step) & exam.y_test.is_counted[:, step]
            readings[slot, step] = exam.read(probes.at(slot, step), step, vectors, rows)
    steps = [{**place(each), **cells[each].record(exam, STEP)} for each in own]
    counted = steps_right(probes, exam.test, exam.y_test)
    return {
        "fields": fields,
        STEP: {**record(exam, [cells[each] for each in own], STEP), "slots": steps},
        "column_step_exact_match": score(list(counted.values()), [problem for problem, _ in counted], seed=exam.seed),
        "sources": source_rows(exam, [cells[each] for each in own]),
        **matrix_report(exam, probes, readings),
    }


def place(pair: tuple[int, int]) -> dict[str, int]:
    """Slot and step, counted from 1."""
    return {"slot": pair[0] + 1, "step": pair[1] + 1}


def best_pair(probes: Probes, field: str, num_slots: int) -> tuple[int, int] | None:
    """The slot and step a field is read best at, by the gain on left-out training problems; its own step wins a tie."""
    found = [
        ((slot, step), probe)
        for (slot, step, name), probe in probes.parts.items()
        if name == field and slot < num_slots and isinstance(probe, Discriminant)
    ]
    enough = [each for each in found if each[1].held_out[0] >= FEWEST_FOR_BEST] or found

    def rank(each: tuple[tuple[int, int], Discriminant]) -> tuple[float, bool, int, int]:
        (slot, step), probe = each
        return round(probe.held_out_gain, 6), step == probes.slots_to_steps[slot], -slot, -step

    return max(enough, key=rank)[0] if enough else None


@dataclass(frozen=True)
class Cell:
    """All readings of one step from one slot."""

    labels: dict[str, Tensor]
    """For each field ``[problems]``: the right value at test, -1 where none is asked."""
    sources: dict[str, Reading]
    floors: dict[str, Reading]
    """``position_prior`` and ``input``."""
    control: dict[str, Tensor]
    """For each field ``[problems]``: hits on the control task."""
    control_by: dict[str, str]
    """For each field what control labels hang on: ``step`` or ``problem``; see :meth:`Exam.types`."""
    why_not: dict[str, str]
    """For each field that does not vary here what it does instead."""

    @staticmethod
    def of(exam: Exam, probes: Probes, pair: tuple[int, int], train: Tensor, test: Tensor) -> "Cell":
        """Read a pair from its slot's states ``[problems, width]``."""
        slot, step = pair
        rows, parts = exam.rows(slot, step), probes.at(slot, step)
        labels = {field: torch.where(rows, y[:, step], NONE) for field, y in exam.y_test.labels.items()}
        why_not = {}
        for field, y in labels.items():
            there = y[y >= 0].unique()
            probe = parts[field]
            if isinstance(probe, Constant):
                why_not[field] = probe.why
            elif len(there) < 2:
                why_not[field] = f"{len(there)} different values among the test steps"
        if all(field in why_not for field in labels):
            why_not[STEP] = "no field varies"
        labels[STEP] = whole_labels(labels, exam.y_test.is_whole[:, step])
        return Cell(
            labels,
            exam.source_readings(probes, slot, step, test),
            {"position_prior": exam.prior_reading(parts, step, rows), "input": exam.input_reading(step)},
            exam.control_hits(probes, slot, step, train, test),
            {field: exam.types(step, field)[0] for field in exam.y_test.labels},
            why_not,
        )

    def record(self, exam: Exam, field: str) -> dict[str, Any]:
        """The score of a field here."""
        return record(exam, [self], field)


def nothing(why: str, n: int = 0) -> dict[str, Any]:
    """A score where there is nothing to be scored."""
    return {"value": None, "n": n, "low": None, "high": None, "clusters": n, "why": why}


def record(exam: Exam, cells: Sequence[Cell], field: str) -> dict[str, Any]:
    """The score of a field over cells, beside its floors; cells where it does not vary are left out, and counted."""
    used = [cell for cell in cells if field not in cell.why_not and cell.sources]
    if not used:
        n = int(sum(int((cell.labels[field] >= 0).sum()) for cell in cells))
        return nothing("; ".join(dict.fromkeys(cell.why_not.get(field, "no such test step") for cell in cells)), n)
    counts = sum(cell.sources["real"].counts[field] for cell in used)
    assert isinstance(counts, Tensor)
    hits = {
        "real": [cell.sources["real"].hits[field] for cell in used],
        "majority": [majority_hits([cell.labels[field] for cell in used])],
        "position_prior": [cell.floors["position_prior"].hits[field] for cell in used],
        "shuffled": [cell.sources["shuffled"].hits[field] for cell in used],
        "shuffled_in_stratum": [cell.sources["shuffled_in_stratum"].hits[field] for cell in used],
        "input": [cell.floors["input"].hits[field] * cell.sources["real"].counts[field] for cell in used],
    }
    if field != STEP:
        hits["control_task"] = [cell.control[field] for cell in used]
    drawn = dict(zip(hits, exam.resampler.means(torch.stack([sum_of(each) for each in hits.values()]), counts), strict=True))
    floors = {name: rate(values, counts) for name, values in drawn.items() if name != "real"}
    found = {
        **rate(drawn["real"], counts),
        "floors": floors,
        "floor": max(floors[name]["value"] for name in INFORMATION_FREE),
        "gain": interval(gain(drawn["real"], torch.stack([drawn[name] for name in INFORMATION_FREE]))),
        "above_input": interval(drawn["real"] - drawn["input"]),
        "left_out": len(cells) - len(used),
    }
    if field != STEP:
        found["selectivity"] = interval(drawn["real"] - drawn["control_task"])
        found["control_by"] = "; ".join(dict.fromkeys(cell.control_by[field] for cell in used))
        found |= information(exam, used, field, counts)
    return found


def information(exam: Exam, cells: Sequence[Cell], field: str, counts: Tensor) -> dict[str, Any]:
    """Bits read: what the right value costs by the training shares of its position, less what it costs the probe."""
    prior = sum_of([cell.floors["position_prior"].bits[field] for cell in cells])
    real = sum_of([cell.sources["real"].bits[field] for cell in cells])
    without, read = exam.resampler.means(torch.stack([prior, prior - real]), counts)
    bits = interval(read)
    return {"bits": bits["value"], "bits_low": bits["low"], "bits_high": bits["high"], "entropy": float(without[0])}


def source_rows(exam: Exam, cells: Sequence[Cell]) -> dict[str, Any]:
    """For each source what its vectors give, over all cells where a field varies."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for cell in cells for name in cell.sources):
        row: dict[str, Any] = {"fields": {}, "bits": {}}
        for field in (*exam.y_test.labels, STEP):
            used = [cell for cell in cells if field not in cell.why_not and field in cell.sources.get(name, Reading()).hits]
            if not used:
                continue
            counts = sum_of([cell.sources[name].counts[field] for cell in used])
            hits = sum_of([cell.sources[name].hits[field] for cell in used])
            score = rate(exam.resampler.means(hits, counts), counts)
            if field == STEP:
                row[STEP] = score
                continue
            row["fields"][field] = score
            saved = [cell.floors["position_prior"].bits[field] - cell.sources[name].bits[field] for cell in used]
            row["bits"][field] = float(sum_of(saved).sum() / counts.sum())
        found[name] = row
    return found


def sum_of(tensors: Sequence[Tensor]) -> Tensor:
    """Their sum, as one tensor."""
    return torch.stack(list(tensors)).sum(0)
