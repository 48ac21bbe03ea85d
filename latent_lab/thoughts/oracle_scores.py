"""Steps read from thoughts, scored exactly, beside what knows no thought: the floors every score of an oracle stands on."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from latent_lab.thoughts.oracle import Oracle, Reading
from latent_lab.thoughts.questions import Item, Material, Question
from latent_lab.thoughts.scores import score, with_floor
from latent_lab.thoughts.sources import Vectors

Rows = list[Tensor | None]


def asked_steps(
    oracle: Oracle,
    material: Material,
    items: Sequence[Item],
    *,
    task: str = "step",
    about: str = "",
    held_out: bool = False,
    numbered: bool = False,
) -> list[Question]:
    """The same question about each item: training's first wording, or the held-out one."""
    is_numbered = numbered or oracle.options.thoughts == "all"
    of: dict[int | None, Question] = {}
    found = []
    for item in items:
        number = item.step + 1 if is_numbered else None
        if number not in of:
            of[number] = oracle.writer.questions(task, about, number=number, held_out=held_out)[0]
        found.append(of[number])
    return found


def thoughts(oracle: Oracle, material: Material, items: Sequence[Item], offset: int = 0) -> list[Tensor]:
    """For each item the vectors its question is asked with; ``offset`` takes another slot's thought."""
    if oracle.options.thoughts == "all":
        return [material.vectors(item.problem, material.all(item.problem)) for item in items]
    c = material.latents_per_step
    return [material.vectors(item.problem, (item.slot + offset * c,)) for item in items]


def most_frequent(values: Sequence[str]) -> str:
    """The most frequent value, of equals the smallest; empty of none."""
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], value)) if counts else ""


def guesses(train: Material, items: Sequence[Item]) -> dict[str, list[str]]:
    """What would be said without a thought: the most frequent training step, and that of the same place in the chain."""
    steps = [train.step(item) for item in train.items]
    always = most_frequent(steps)
    places: dict[int, list[str]] = {}
    for item, step in zip(train.items, steps, strict=True):
        places.setdefault(item.step, []).append(step)
    at = {place: most_frequent(values) for place, values in places.items()}
    return {"constant": [always] * len(items), "position_prior": [at.get(item.step, always) for item in items]}


def vectors_of(train: Material, test: Material, items: Sequence[Item], oracle: Oracle, labels: Sequence[str]) -> Vectors:
    """What the sources are made from; the vectors of a question are one long row."""
    rows = torch.stack([v.flatten() for v in thoughts(oracle, test, items)])
    slots = [item.slot for item in items]
    states = train.states.flatten(2)
    present = (torch.arange(train.num_slots)[None] < train.store.num_slots[:, None]).to(states)[..., None]
    means = (states * present).sum(0) / present.sum(0).clamp(min=1)
    if oracle.options.thoughts == "all":
        means = means.flatten()[None].expand(train.num_slots, -1)
    most = max([*slots, 0])
    means = torch.nn.functional.pad(means, (0, 0, 0, max(most + 1 - len(means), 0)))
    strata = [f"{slot}/{len(test.rows[i.problem]['steps'])}/{kind(test, i)}" for slot, i in zip(slots, items, strict=True)]
    start = None
    if oracle.options.thoughts != "all":  # the state at the start marker is the first thought
        start = torch.stack([test.vectors(item.problem, (0,)).flatten() for item in items])
    return Vectors(rows, slots, [test.rows[item.problem]["id"] for item in items], strata, labels, means, start)


def kind(material: Material, item: Item) -> str:
    """Of what kind a step is, as far as the grammar says: whether it counts, and which fields it has."""
    step = material.step(item)
    return f"{material.grammar.is_counted(step)}/{'+'.join(sorted(material.grammar.parse(step) or {}))}"


def source_rows(vectors: Vectors, name: str, width: int, seed: int) -> list[Tensor] | None:
    """Vectors of a source as an oracle takes them: ``[k, width]`` each; None for a source without."""
    given = vectors.source(name, seed)
    return None if given is None else [row.view(-1, width) for row in given]


def hits_of(said: Sequence[str], gold: Sequence[str]) -> list[float]:
    """1.0 where a text is exactly the gold text, blanks around it aside."""
    return [float(a.strip() == b.strip()) for a, b in zip(said, gold, strict=True)]


def both_scores(hits: Sequence[float], material: Material, items: Sequence[Item], seed: int) -> dict[str, Any]:
    """``step_exact_match`` over all items and ``column_step_exact_match`` over those that count for the strict score."""
    ids = [material.rows[item.problem]["id"] for item in items]
    counted = [i for i, item in enumerate(items) if material.grammar.is_counted(material.step(item))]
    return {
        "step_exact_match": score(hits, ids, seed=seed),
        "column_step_exact_match": score([hits[i] for i in counted], [ids[i] for i in counted], seed=seed),
    }


def gained(
    hits: Sequence[float], floors: dict[str, Sequence[float]], material: Material, items: Sequence[Item], seed: int
) -> dict[str, Any]:
    """The same two scores, each with its floors on the same items and its gain."""
    ids = [material.rows[item.problem]["id"] for item in items]
    found: dict[str, Any] = {}
    for name, strict in (("step_exact_match", False), ("column_step_exact_match", True)):
        at = [i for i, item in enumerate(items) if not strict or material.grammar.is_counted(material.step(item))]
        chosen: dict[str, Sequence[float]] = {floor: [values[i] for i in at] for floor, values in floors.items()}
        found[name] = (
            with_floor([hits[i] for i in at], chosen, [ids[i] for i in at], seed=seed)
            if at
            else {**score([], [], seed=seed), "floors": {}, "floor": None, "gain": None}
        )
    return found


def step_reading(oracle: Oracle, train: Material, test: Material, max_new_tokens: int, seed: int) -> dict[str, Any]:
    """What a training run reports: steps written freely from thoughts, with floors, and a row for each."""
    items = test.items
    gold = [test.step(item) for item in items]
    vectors = vectors_of(train, test, items, oracle, gold)
    said: dict[str, list[Reading]] = {}
    for name in ("real", "none", "shuffled", "shuffled_in_stratum"):
        questions = asked_steps(oracle, test, items)
        said[name] = oracle.ask(source_rows(vectors, name, oracle.width, seed), questions, max_new_tokens)
    hits = {name: hits_of([r.text for r in readings], gold) for name, readings in said.items()}
    floors: dict[str, Sequence[float]] = {name: hits_of(texts, gold) for name, texts in guesses(train, items).items()}
    floors |= {name: values for name, values in hits.items() if name != "real"}
    rows = [
        {
            "id": test.rows[item.problem]["id"],
            "step": item.step,
            "slot": item.slot,
            "gold": g,
            "said": r.text,
            "confidence": r.confidence,
            "stopped": r.stopped,
            "correct": bool(h),
        }
        for item, g, r, h in zip(items, gold, said["real"], hits["real"], strict=True)
    ]
    both = gained(hits["real"], floors, test, items, seed)
    return {**both, "rows": rows}


def cross_entropy(scores: Tensor, candidates: Sequence[str], gold: Sequence[str]) -> list[float]:
    """Bits for each item: ``-log2`` of the probability of its gold candidate."""
    of = {candidate: i for i, candidate in enumerate(candidates)}
    at = torch.tensor([of[text] for text in gold], dtype=torch.long)
    return (-scores[torch.arange(len(gold)), at] / math.log(2)).tolist()


def bits_part(entropies: dict[str, list[float]], ids: Sequence[str], seed: int) -> dict[str, Any]:
    """Bits read, ``CE_none - CE_real``, with the entropies they are made of and bits of every other source."""
    none = entropies["none"]
    real = [a - b for a, b in zip(none, entropies["real"], strict=True)]
    return {
        "value": score(real, ids, seed=seed),
        **{f"ce_{name}": sum(values) / max(len(values), 1) for name, values in entropies.items()},
        "sources": {
            name: (sum(none) - sum(values)) / max(len(values), 1) for name, values in entropies.items() if name != "none"
        },
    }
