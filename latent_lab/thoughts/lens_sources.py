"""Lenses on every source of vectors: what each says of vectors that cannot know what is asked, layer by layer."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from latent_lab.thoughts.lens_asked import Asked
from latent_lab.thoughts.lens_kinds import Scores, Seen
from latent_lab.thoughts.probe_scores import Resampler, gain, interval
from latent_lab.thoughts.sources import SOURCES, VECTORLESS, Origins
from latent_lab.thoughts.store import ThoughtStore

MEASURES = {"hit1": (1, 3), "mrr": (2, 4)}
"""Rows of :meth:`Asked.marks`: the measure, and the same for another problem's step."""
PLAIN, INTERVALS = ("value", "floor", "gain"), ("low", "high", "gain_low", "gain_high")
"""What is kept of a measure, and what more of hit@1."""
APART = 100_003
"""Added to the seed for the vectors' donors: drawn like the floor's, they would be the same problems, whose step is then in the
vector that the floor is scored on."""
PLACES = 4
"""Digits after the point that are kept: there are thousands of these numbers."""

Marks = dict[tuple[str, str], list[Tensor | None]]
"""By source and field, for each layer the marks ``[5, problems]`` of all slots together; None where there are none."""

Donors = dict[tuple[int, str, str | None], Tensor | None]
"""By slot, source and the field it is for: whose vector each takes, which is the same in every layer."""


def left_out(origins: Origins) -> dict[str, str]:
    """The sources that are not looked at, and why."""
    why = dict.fromkeys(VECTORLESS, "it has no vector, and a lens looks at nothing else")
    if origins.start is None:
        why["start"] = "no states at the start marker were given"
    if origins.other_seed is None:
        why["other_seed"] = "no run of another seed was named"
    return {name: why[name] for name in SOURCES if name in why}


def source_report(
    ask: Asked,
    origins: Origins,
    train: ThoughtStore,
    lenses: Mapping[int, Scores],
    seen: Mapping[int, dict[int, Seen]],
    resampler: Resampler,
) -> dict[str, Any]:
    """For each source and field a score by layer, all slots together; ``lenses`` and ``seen`` (what real vectors gave) by layer.

    Of each: ``n``, the steps asked about in a layer; and for ``hit1`` and ``mrr``, a number for each layer (None where it has no
    such source): ``value``, ``floor`` (the same vectors scored against another problem's step) and ``gain`` over it; of hit@1
    also the intervals of value (``low``, ``high``) and gain (``gain_low``, ``gain_high``).
    """
    marks: Marks = {}
    donors: Donors = {}
    for at, layer in enumerate(seen):
        states, means = ask.store.layer(layer), mean_thoughts(train, layer, len(ask.own))
        for slot, real in seen[layer].items():
            given = slot_marks(ask, origins, lenses[layer], layer, slot, states[:, slot], means, real, donors)
            for key, each in given.items():
                held = marks.setdefault(key, [None] * len(seen))
                before = held[at]
                held[at] = each if before is None else before + each
    found: dict[str, Any] = {name: {"fields": {}} for name in SOURCES if any(key[0] == name for key in marks)}
    for field in ask.words.tokens:
        names = [name for name in found if (name, field) in marks]
        for name, scores in zip(names, by_layer(resampler, [marks[name, field] for name in names]), strict=True):
            found[name]["fields"][field] = scores
    return found


def mean_thoughts(train: ThoughtStore, layer: int, num_slots: int) -> Tensor:
    """``[slots, width]``: the mean state of each slot over training problems; zero for a slot that none of them has."""
    states = train.layer(layer)
    there = (torch.arange(states.shape[1]) < train.num_slots[:, None]).float()[..., None]
    means = (states * there).sum(0) / there.sum(0).clamp(min=1)
    return torch.nn.functional.pad(means, (0, 0, 0, max(num_slots - len(means), 0)))


def slot_marks(
    ask: Asked,
    origins: Origins,
    lens: Scores,
    layer: int,
    slot: int,
    states: Tensor,
    means: Tensor,
    real: Seen,
    known: Donors,
) -> dict[tuple[str, str], Tensor]:
    """By source and field the marks ``[5, problems]`` of one slot; ``states [all problems, width]`` are this slot's.

    A vector that some other problem has here was looked at already.
    """
    step, index = ask.own[slot], ask.rows(slot)
    assert step is not None
    vectors = origins.vectors(layer, slot, step, states, index, means)
    found = {}
    for name, only, given in vectors.every({field: y[index, step] for field, y in ask.y.labels.items()}):
        if (slot, name, only) not in known:
            known[slot, name, only] = given.donors_of(name, ask.seed + APART)
        donors = known[slot, name, only]
        if donors is not None or name == "real":
            ranks = real.ranks if donors is None else {field: each[donors] for field, each in real.ranks.items()}
        else:
            source = given.source(name, ask.seed + APART)
            assert source is not None
            ranks = ask.look_at(lens, source).ranks
        for field in (only,) if only else tuple(ranks):
            found[name, field] = ask.marks(ranks[field], field, slot)
    return found


def by_layer(resampler: Resampler, sources: Sequence[Sequence[Tensor | None]]) -> list[dict[str, Any]]:
    """For each source the scores of one field, from marks ``[5, problems]`` by layer, as lists by layer."""
    there = [each for marks in sources for each in marks if each is not None]
    drawn = iter(resampler.sums(torch.stack(there)) if there else ())  # no problem may have a step to ask about
    found = []
    for marks in sources:
        each = [None if layer is None else next(drawn) for layer in marks]
        n = max((int(sums[0, 0]) for sums in each if sums is not None), default=0)
        hit1 = [score(sums, *MEASURES["hit1"]) for sums in each]
        mrr = [score(sums, *MEASURES["mrr"]) for sums in each]
        found.append({"n": n, "hit1": listed(hit1, (*PLAIN, *INTERVALS)), "mrr": listed(mrr, PLAIN)})
    return found


def listed(scores: Sequence[dict[str, float | None]], keys: Sequence[str]) -> dict[str, list[float | None]]:
    """Scores by layer as a list for each of their keys."""
    return {key: [each.get(key) for each in scores] for key in keys}


def score(sums: Tensor | None, own: int, others: int) -> dict[str, float | None]:
    """One layer's score with its floor and gain, from sums of marks ``[5, 1 + resamples]``; empty where nothing was asked."""
    if sums is None or not float(sums[0, 0]):
        return {}
    value, floor = sums[own] / sums[0], sums[others] / sums[0]
    raw, won = interval(value), interval(gain(value, floor[None]))
    found = {"value": raw["value"], "floor": float(floor[0]), "gain": won["value"], "low": raw["low"], "high": raw["high"]}
    found |= {"gain_low": won["low"], "gain_high": won["high"]}
    return {name: None if each is None else round(each, PLACES) for name, each in found.items()}
