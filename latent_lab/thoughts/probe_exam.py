"""What a layer's probes get right on test problems, pair by pair of slot and step, from every source of vectors."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latent_lab.thoughts.probe_fit import Constant, Probe, fit_all
from latent_lab.thoughts.probe_scores import Resampler
from latent_lab.thoughts.probe_targets import NONE, NUM_TABLES, Targets, question_features, tables
from latent_lab.thoughts.sources import Origins
from latent_lab.thoughts.store import ThoughtStore

if TYPE_CHECKING:
    from latent_lab.thoughts.probes import Probes

STEP = "whole_step"
"""Stands among the fields for all fields of a step at once."""
BIT = torch.log(torch.tensor(2.0, dtype=torch.float64)).item()


@dataclass
class Reading:
    """What was got right of one step of every test problem; all tensors are ``[problems]``, zero where nothing was asked."""

    counts: dict[str, Tensor] = field(default_factory=dict)
    """By field: 1 where the problem has such a label."""
    hits: dict[str, Tensor] = field(default_factory=dict)
    """By field: 1 where the most probable value is the right one."""
    bits: dict[str, Tensor] = field(default_factory=dict)
    """By field: surprise at the right value, in bits."""


@dataclass(frozen=True)
class Exam:
    """Train and test problems with their labels: what is the same for all layers."""

    train: ThoughtStore
    test: ThoughtStore
    y_train: Targets
    y_test: Targets
    values: dict[str, tuple[str, ...]]
    """For each field its values."""
    seed: int
    resampler: Resampler
    origins: Origins
    """What the sources of test thoughts are made from."""
    inputs_train: Tensor | None = None
    """``[problems, features]``: what the input baseline reads in place of a thought; None: the question's tokens."""
    inputs_test: Tensor | None = None
    _inputs_read: dict[int, Reading] = field(default_factory=dict)

    @cached_property
    def inputs(self) -> tuple[Tensor, Tensor]:
        """``[problems, features]`` of both, standardised."""
        if self.inputs_train is None or self.inputs_test is None:
            questions = [[row["question"] for row in store.rows] for store in (self.train, self.test)]
            train, test = question_features(*questions)
        else:
            train, test = self.inputs_train.float(), self.inputs_test.float()
        mean, scale = standard(train)
        return (train - mean) / scale, (test - mean) / scale

    @cached_property
    def held_out(self) -> Tensor:
        """``[train problems]``, bool: a fifth of them."""
        return held_out(len(self.y_train.problems), self.seed)

    def rows(self, slot: int, step: int) -> Tensor:
        """``[test problems]``, bool: those that have this slot and a label for this step."""
        labelled = torch.stack([y[:, step] >= 0 for y in self.y_test.labels.values()]).any(0)
        return labelled & (self.test.num_slots > slot)

    def input_reading(self, step: int) -> Reading:
        """The same probe on the question instead of a thought; a step is read once."""
        if step not in self._inputs_read:
            labels = {name: y[:, step] for name, y in self.y_train.labels.items()}
            sizes = {name: len(self.values[name]) for name in labels}
            probes = fit_all(self.inputs[0], labels, sizes, self.held_out)
            self._inputs_read[step] = self.read(probes, step, self.inputs[1], torch.ones(len(self.inputs[1]), dtype=torch.bool))
        return self._inputs_read[step]

    def read(self, probes: dict[str, Probe], step: int, vectors: Tensor, rows: Tensor, only: str | None = None) -> Reading:
        """Read one step (or ``only`` one field of it) from vectors ``[problems, width]`` (standardised), at ``rows`` only."""
        reading = Reading()
        is_right, is_asked = self.y_test.is_whole[:, step].clone(), torch.zeros(len(rows), dtype=torch.bool)
        for name, labels in self.y_test.labels.items():
            if only not in (None, name):
                continue
            y = torch.where(rows, labels[:, step], NONE)
            there = y >= 0
            log_p = probes[name].log_probabilities(vectors[there])
            hits, bits = torch.zeros(len(rows)), torch.zeros(len(rows), dtype=torch.float64)
            hits[there] = (log_p.argmax(1) == y[there]).float()
            bits[there] = -log_p.gather(1, y[there][:, None])[:, 0].double() / BIT
            reading.counts[name], reading.hits[name], reading.bits[name] = there.float(), hits, bits
            is_right &= ~there | hits.bool()
            is_asked |= there
        reading.counts[STEP], reading.hits[STEP] = is_asked.float(), (is_right & is_asked).float()
        return reading

    def prior_reading(self, probes: dict[str, Probe], step: int, rows: Tensor) -> Reading:
        """What the training shares at this position answer by themselves."""
        shares: dict[str, Probe] = {name: Constant("", probe.log_prior) for name, probe in probes.items()}
        return self.read(shares, step, torch.zeros(len(rows), 1), rows)

    def source_readings(self, probes: "Probes", slot: int, step: int, states: Tensor) -> dict[str, Reading]:
        """A reading from every source that has a vector; ``states [test problems, width]`` are this slot's, as stored."""
        rows = self.rows(slot, step)
        if not rows.any():
            return {}
        parts = probes.at(slot, step)
        index = rows.nonzero()[:, 0]
        vectors = self.origins.vectors(probes.layer, slot, step, states, index, probes.mean)
        found, swapped = {}, Reading()
        for name, only, given in vectors.every({name: y[index, step] for name, y in self.y_test.labels.items()}):
            each = self.read(parts, step, self.placed(probes, slot, given.source(name, self.seed), index), rows, only=only)
            if only is None:
                found[name] = each
                continue
            swapped.counts |= {only: each.counts[only]}
            swapped.hits |= {only: each.hits[only]}
            swapped.bits |= {only: each.bits[only]}
        return {**found, "label_swapped": swapped}

    def placed(self, probes: "Probes", slot: int, vectors: Tensor | None, index: Tensor) -> Tensor:
        """``[test problems, width]``: vectors of the problems ``index``, standardised."""
        assert vectors is not None
        out = torch.zeros(len(self.y_test.problems), vectors.shape[1])
        out[index] = (vectors - probes.mean[slot]) / probes.scale[slot]
        return out

    def types(self, step: int, name: str) -> tuple[str, list[str]]:
        """What control labels of a field hang on: its name, and the type of each train and test problem, in this order.

        That is the text of the ``step``, as different steps may say the same of a field. Where they do not (the step *is* the
        field, as a node is), random labels by step would be the field by another name; then it is the ``problem``.
        """
        texts = self.y_train.types(step) + self.y_test.types(step)
        labels = torch.cat([self.y_train.labels[name][:, step], self.y_test.labels[name][:, step]]).tolist()
        pairs = {(text, label) for text, label in zip(texts, labels, strict=True) if label >= 0}
        if len(pairs) > len({label for _, label in pairs}):
            return "step", texts
        return "problem", [row["question"] for store in (self.train, self.test) for row in store.rows]

    def control_hits(self, probes: "Probes", slot: int, step: int, train: Tensor, test: Tensor) -> dict[str, Tensor]:
        """For each field ``[test problems]``: how often a probe of random labels by type is right, mean over the tables.

        ``train`` and ``test`` are this slot's states ``[problems, width]``.
        """
        rows, there = self.rows(slot, step), self.train.num_slots > slot
        labels, asked = {}, {}
        for number, name in enumerate(self.y_train.labels):
            y = torch.where(there, self.y_train.labels[name][:, step], NONE)
            known = torch.cat([self.y_train.labels[name][:, step], self.y_test.labels[name][:, step]]).tolist()
            drawn = tables(self.types(step, name)[1], known, self.seed + 1009 * step + 31 * number)
            for t in range(NUM_TABLES):
                labels[f"{name}/{t}"] = torch.where(y >= 0, drawn[t, : len(y)], NONE)
                asked[f"{name}/{t}"] = drawn[t, len(y) :]
        sizes = {key: len(self.values[key.rpartition("/")[0]]) for key in labels}
        fitted = fit_all((train - probes.mean[slot]) / probes.scale[slot], labels, sizes, self.held_out)
        vectors = (test - probes.mean[slot]) / probes.scale[slot]
        found = {name: torch.zeros(len(rows), dtype=torch.float64) for name in self.y_test.labels}
        for key, probe in fitted.items():
            name = key.rpartition("/")[0]
            is_asked = rows & (self.y_test.labels[name][:, step] >= 0)
            found[name] += (probe.log_probabilities(vectors).argmax(1) == asked[key]).double() * is_asked / NUM_TABLES
        return found


def held_out(num_problems: int, seed: int, share: float = 0.2) -> Tensor:
    """``[problems]``, bool: a random share of them."""
    order = torch.randperm(num_problems, generator=torch.Generator().manual_seed(seed))
    chosen = torch.zeros(num_problems, dtype=torch.bool)
    chosen[order[: int(share * num_problems)]] = True
    return chosen


def standard(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """``[width]`` mean and scale of vectors ``[n, width]``; what does not vary is divided by infinity and so left out."""
    mean = vectors.mean(0)
    scale = vectors.std(0, correction=0)
    return mean, torch.where(scale > 1e-6 * mean.abs().clamp(min=1e-3), scale, torch.inf)


def whole_labels(labels: dict[str, Tensor], is_whole: Tensor) -> Tensor:
    """``[problems]``: a number for each different set of labels ``[problems]``; -1 where there is none, or not all."""
    stacked = torch.stack(list(labels.values()), dim=1)
    numbers = stacked.unique(dim=0, return_inverse=True)[1]
    return torch.where((stacked >= 0).any(1) & is_whole, numbers, NONE)


def majority_hits(labels: Sequence[Tensor]) -> Tensor:
    """``[problems]``: hits of the one value that is right most often; ``labels`` are ``[problems]`` each, -1 where none."""
    stacked = torch.stack(list(labels))
    there = stacked[stacked >= 0]
    return (stacked == there.bincount().argmax()).float().sum(0) if len(there) else torch.zeros(stacked.shape[1])
