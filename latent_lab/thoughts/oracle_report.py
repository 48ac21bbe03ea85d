"""What an oracle reads from thoughts, and what it says without them: the table behind every claim about its readings.

Texts are written freely and compared exactly; bits are cross-entropies over candidate answers, less those of the same oracle
asked without a vector. A reading that equals its floor is no reading.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from latent_lab.grading.statistics import paired_cluster_difference
from latent_lab.thoughts.grammar import Grammar
from latent_lab.thoughts.oracle import Oracle, Reading
from latent_lab.thoughts.oracle_others import answer_part, foretold_part, problem_part, yes_no_part
from latent_lab.thoughts.oracle_scores import (
    asked_steps,
    bits_part,
    both_scores,
    cross_entropy,
    gained,
    guesses,
    hits_of,
    most_frequent,
    source_rows,
    thoughts,
    vectors_of,
)
from latent_lab.thoughts.questions import Item, Material
from latent_lab.thoughts.scores import score, with_floor
from latent_lab.thoughts.sources import Vectors
from latent_lab.thoughts.store import StoreError, ThoughtStore, layer_numbers

FLOORS = ("none", "shuffled", "shuffled_in_stratum")
"""Sources whose scores are floors; asked about all items, as the real one is."""
CHEAP = ("zero", "mean")
"""Sources of few different vectors: their bits cost next to nothing."""
MOST_CANDIDATES = 512
"""Whole steps are scored by likelihood where training has no more different ones."""
OFFSETS = range(-4, 5)
BINS = 10


@dataclass(frozen=True)
class Exam:
    """An oracle, what it is examined on, and what the controls are made from."""

    oracle: Oracle
    train: Material
    test: Material
    items: Sequence[Item]
    vectors: Vectors
    seed: int
    max_new_tokens: int

    @cached_property
    def gold(self) -> list[str]:
        """Text of each item's step."""
        return [self.test.step(item) for item in self.items]

    @cached_property
    def ids(self) -> list[str]:
        """Id of each item's problem."""
        return [self.test.rows[item.problem]["id"] for item in self.items]

    def first(self, count: int) -> "Exam":
        """The same exam on the first so many items."""
        v, n = self.vectors, min(count, len(self.items))
        cut = {name: getattr(v, name)[:n] for name in ("real", "slots", "problems", "strata", "labels")}
        other = None if v.other_seed is None else v.other_seed[:n]
        return replace(self, items=self.items[:n], vectors=replace(v, **cut, other_seed=other))

    def given(self, source: str) -> dict[str, Any]:
        """Vectors and text of a source, as :meth:`Oracle.ask` takes them."""
        texts = [self.test.rows[item.problem]["question"] for item in self.items]
        return {
            "vectors": source_rows(self.vectors, source, self.oracle.width, self.seed),
            "text": texts if source == "text_only" else None,
        }

    def ask(self, source: str, *, held_out: bool = False) -> list[Reading]:
        """The step, written freely from a source."""
        questions = asked_steps(self.oracle, self.test, self.items, held_out=held_out, numbered=source == "text_only")
        if source == "none":  # the same question about nothing has the same answer
            once = list(dict.fromkeys(questions))
            said = dict(zip(once, self.oracle.ask(None, once, self.max_new_tokens), strict=True))
            return [said[question] for question in questions]
        return self.oracle.ask(questions=questions, max_new_tokens=self.max_new_tokens, **self.given(source))

    def score(self, source: str, candidates: Sequence[str], field: str = "") -> Tensor:
        """``[items, candidates]``: log-probabilities of candidate steps, or values of a field."""
        task = "field" if field else "step"
        numbered = source == "text_only"
        questions = asked_steps(self.oracle, self.test, self.items, task=task, about=field, numbered=numbered)
        if source == "none":
            once = list(dict.fromkeys(questions))
            return self.oracle.score(None, once, candidates)[[once.index(question) for question in questions]]
        return self.oracle.score(questions=questions, candidates=candidates, **self.given(source))


def oracle_report(
    oracle: Oracle,
    train: ThoughtStore,
    test: ThoughtStore,
    grammar: Grammar,
    *,
    seed: int = 0,
    sources: Sequence[str] = (),
    other_seed: ThoughtStore | None = None,
    probe: Mapping[tuple[str, int], float] | None = None,
    max_items: int = 5000,
    max_scored: int = 200,
) -> dict[str, Any]:
    """Examine an oracle on a store of test problems; ``train`` and its grammar only make floors, candidates and controls.

    ``sources`` names controls beside the floors (default: all there are). At most ``max_items`` steps are read freely, from the
    real thoughts and for the floors; at most ``max_scored`` from the other sources, and half as many by likelihood, which costs a
    run for each candidate. ``probe`` says by problem and step whether a probe reads it, as ``probes.steps_right`` does: then
    there is :func:`above_probe`. See the module's tests for the keys. Every score is ``{value, n, low, high, clusters}``.
    """
    exam = examination(oracle, train, test, grammar, seed, other_seed, max_items)
    few = exam.first(max_scored)
    readings = {name: exam.ask(name) for name in ("real", *FLOORS)}
    wanted = [name for name in exam.vectors.names if name not in readings and (not sources or name in sources)]
    others = {name: few.ask(name) for name in wanted}
    hits = {name: hits_of([r.text for r in said], exam.gold) for name, said in readings.items()}
    floors: dict[str, Sequence[float]] = {
        name: hits_of(texts, exam.gold) for name, texts in guesses(exam.train, exam.items).items()
    }
    floors |= {name: hits[name] for name in FLOORS}
    scored = exam.first(max_scored // 2)
    fields = field_part(scored)
    whole = step_bits(scored, ["real", *FLOORS, *(name for name in wanted if name in CHEAP)])
    column = {name: both_scores(values, exam.test, exam.items, seed) for name, values in floors.items()}
    report = gained(hits["real"], floors, exam.test, exam.items, seed)
    said = {name: (exam, texts) for name, texts in readings.items()} | {name: (few, texts) for name, texts in others.items()}
    return {
        **report,
        "floors": column,
        "sources": {name: source_part(*pair, whole.get("sources", {}).get(name)) for name, pair in said.items()},
        "fields": {name: part["accuracy"] for name, part in fields.items()},
        "bits": {"step": whole} | {name: part["bits"] for name, part in fields.items()},
        "answer": answer_part(oracle, exam.train, exam.test, seed, max_scored),
        "problem": problem_part(oracle, exam.test, seed, max_scored),
        "yes_no": yes_no_part(oracle, exam.train, exam.test, seed, max_scored),
        "foretold": foretold_part(oracle, exam.train, exam.test, seed, max_scored),
        "paraphrases": paraphrase_part(few),
        "offsets": offset_part(exam, readings["real"]),
        "self_consistency": consistency_part(exam, readings["real"]),
        "recompute_gap": recompute_part(scored, fields, readings["real"][: len(scored.items)]),
        "calibration": calibration(readings["real"], hits["real"]),
        "by_slot": slot_part(exam, hits["real"], floors),
        "by_answer": answered_part(exam, hits["real"]),
        **({"above_probe": above_probe(exam, hits["real"], probe)} if probe is not None else {}),
    }


def examination(
    oracle: Oracle,
    train: ThoughtStore,
    test: ThoughtStore,
    grammar: Grammar,
    seed: int,
    other_seed: ThoughtStore | None,
    max_items: int,
) -> Exam:
    """The exam on whole problems, in an order drawn from ``seed``, of at most ``max_items`` steps."""
    layers, c = layers_read(oracle, train), oracle.latents_per_step
    learned, examined = Material(train, grammar, layers, c), Material(test, grammar, layers, c)
    order = list(range(len(examined.rows)))
    random.Random(seed).shuffle(order)
    place = {problem: i for i, problem in enumerate(order)}
    items = sorted(examined.items, key=lambda item: (place[item.problem], item.step))[:max_items]
    vectors = vectors_of(learned, examined, items, oracle, [examined.step(item) for item in items])
    if other_seed is not None:
        rows = {row["id"]: i for i, row in enumerate(other_seed.rows)}
        other = Material(other_seed, grammar, layers, c)
        same = [replace(item, problem=rows[examined.rows[item.problem]["id"]]) for item in items]
        vectors = replace(vectors, other_seed=torch.stack([v.flatten() for v in thoughts(oracle, other, same)]))
    longest = max((len(oracle.writer.target(learned.step(item))) for item in learned.items), default=1)
    return Exam(oracle, learned, examined, items, vectors, seed, longest + 4)


def layers_read(oracle: Oracle, store: ThoughtStore) -> tuple[int, ...]:
    """The layers of a store that an oracle was trained to read.

    A store of these alone is taken as it is; of another, whose last layer is the model's last, they are picked. StoreError where
    it does not hold them.
    """
    wanted = oracle.options.read_layers
    if len(store.layers) == len(wanted):
        return store.layers
    numbers = layer_numbers(wanted, max(store.layers))
    if missing := [number for number in numbers if number not in store.layers]:
        raise StoreError(
            f"{store.folder} holds the layers {list(store.layers)}; the oracle reads layer {missing[0]}: collect it, too"
        )
    return numbers


def source_part(exam: Exam, readings: Sequence[Reading], bits: float | None) -> dict[str, Any]:
    """One row of the table of sources: exact match, fields of what was written, what was no step, bits."""
    texts, grammar = [r.text for r in readings], exam.test.grammar
    gold = grammar.labels(exam.gold)
    said = [grammar.parse(text) for text in texts]
    fields = {}
    for name in grammar.values:
        at = [i for i, labels in enumerate(gold) if name in labels]
        right = [float((said[i] or {}).get(name) == gold[i][name]) for i in at]
        fields[name] = score(right, [exam.ids[i] for i in at], seed=exam.seed)
    invalid = sum(parsed is None for parsed in said) / max(len(said), 1)
    return {**both_scores(hits_of(texts, exam.gold), exam.test, exam.items, exam.seed), "fields": fields, "invalid": invalid,
            "stopped": sum(r.stopped for r in readings) / max(len(readings), 1), "bits": bits}  # fmt: skip


# Likelihoods


def step_bits(exam: Exam, names: Sequence[str]) -> dict[str, Any]:
    """Bits of whole steps, over all different steps of training; empty where there are too many of them."""
    candidates = sorted({exam.train.step(item) for item in exam.train.items})
    known = set(candidates)
    kept = [i for i, text in enumerate(exam.gold) if text in known]
    if len(candidates) > MOST_CANDIDATES or len(candidates) < 2 or not kept:
        return {}
    gold = [exam.gold[i] for i in kept]
    entropies = {name: cross_entropy(exam.score(name, candidates)[kept], candidates, gold) for name in names}
    found = bits_part(entropies, [exam.ids[i] for i in kept], exam.seed)
    return {**found, "candidates": len(candidates), "left_out": len(exam.gold) - len(kept)}


def field_part(exam: Exam) -> dict[str, dict[str, Any]]:
    """For each field asked about by itself: the likeliest value's accuracy with its floors, the bits, and what was said."""
    grammar, found = exam.test.grammar, {}
    labels = grammar.labels(exam.gold)
    if not exam.oracle.options.tasks.get("field") or "field" not in exam.oracle.writer.wordings or len(grammar.values) < 2:
        return {}
    for name, values in grammar.values.items():
        at = [i for i, fields in enumerate(labels) if name in fields]
        if not at or len(values) < 2:
            continue
        gold, ids = [labels[i][name] for i in at], [exam.ids[i] for i in at]
        scores = {source: exam.score(source, values, name)[at] for source in ("real", *FLOORS)}
        said = {source: [values[k] for k in given.argmax(1).tolist()] for source, given in scores.items()}
        trained = [fields[name] for fields in exam.train.labels if name in fields]
        guess = {"constant": [most_frequent(trained)] * len(at), "position_prior": by_place(exam, name, at)}
        floors: dict[str, Sequence[float]] = {
            floor: hits_of(texts, gold) for floor, texts in (guess | {s: said[s] for s in FLOORS}).items()
        }
        entropies = {source: cross_entropy(given, values, gold) for source, given in scores.items()}
        found[name] = {
            "accuracy": with_floor(hits_of(said["real"], gold), floors, ids, seed=exam.seed),
            "bits": bits_part(entropies, ids, exam.seed),
            "said": dict(zip(at, said["real"], strict=True)),
        }
    return found


def by_place(exam: Exam, name: str, at: Sequence[int]) -> list[str]:
    """The most frequent training value of a field at the same place in the chain."""
    places: dict[int, list[str]] = {}
    for item, fields in zip(exam.train.items, exam.train.labels, strict=True):
        if name in fields:
            places.setdefault(item.step, []).append(fields[name])
    always = most_frequent([value for values in places.values() for value in values])
    likeliest = {place: most_frequent(values) for place, values in places.items()}
    return [likeliest.get(exam.items[i].step, always) for i in at]


# What follows from the readings


def paraphrase_part(exam: Exam) -> dict[str, Any]:
    """The step, asked in the wording that training never saw, beside training's own on the same items."""
    ways = {"trained": exam.ask("real"), "held_out": exam.ask("real", held_out=True)}
    return {
        name: both_scores(hits_of([r.text for r in said], exam.gold), exam.test, exam.items, exam.seed)
        for name, said in ways.items()
    }


def offset_part(exam: Exam, readings: Sequence[Reading]) -> dict[str, Any]:
    """Step j read from thought k, by j - k: whether a thought holds the step of its own slot, or of another one."""
    if exam.oracle.options.thoughts == "all":
        return {}
    chains = [exam.test.rows[item.problem]["steps"] for item in exam.items]
    found = {}
    for offset in OFFSETS:
        at = [i for i, (item, steps) in enumerate(zip(exam.items, chains, strict=True)) if 0 <= item.step + offset < len(steps)]
        gold = [chains[i][exam.items[i].step + offset] for i in at]
        counted = [k for k, text in enumerate(gold) if exam.test.grammar.is_counted(text)]
        hits, ids = hits_of([readings[i].text for i in at], gold), [exam.ids[i] for i in at]
        found[str(offset)] = {
            "step_exact_match": score(hits, ids, seed=exam.seed),
            "column_step_exact_match": score([hits[k] for k in counted], [ids[k] for k in counted], seed=exam.seed),
        }
    return found


def consistency_part(exam: Exam, readings: Sequence[Reading]) -> dict[str, Any] | None:
    """Share of what was written that is true by itself; None where the grammar cannot tell."""
    told = [exam.test.grammar.is_consistent(r.text) for r in readings]
    at = [i for i, is_true in enumerate(told) if is_true is not None]
    return score([float(bool(told[i])) for i in at], [exam.ids[i] for i in at], seed=exam.seed) if at else None


def recompute_part(exam: Exam, fields: dict[str, dict[str, Any]], readings: Sequence[Reading]) -> dict[str, Any] | None:
    """Columns of sums: results as asked for, less results computed from the operands in the step that was written freely.

    0 or less: nothing shows that results are stored and not just operands. None for other grammars.
    """
    if not {"a", "b", "carry_in", "total", "write", "carry_out"} <= set(fields):
        return None
    said = {name: fields[name]["said"] for name in fields}
    gold = exam.test.grammar.labels(exam.gold)
    at = [i for i in said["total"] if i in said["write"] and i in said["carry_out"]]
    written = [exam.test.grammar.parse(r.text) or {} for r in readings]
    sums = {i: sum(int(written[i].get(name, "-99")) for name in ("a", "b", "carry_in")) for i in at}
    composed = {
        "total": {i: str(value) for i, value in sums.items()},
        "write": {i: str(value % 10) for i, value in sums.items()},
        "carry_out": {i: str(value // 10) for i, value in sums.items()},
    }
    found, ids = {}, [exam.ids[i] for i in at]
    for name, values in composed.items():
        asked = [float(said[name][i] == gold[i][name]) for i in at]
        made = [float(values[i] == gold[i][name]) for i in at]
        gap = [a - b for a, b in zip(asked, made, strict=True)]
        found[name] = {key: score(v, ids, seed=exam.seed) for key, v in (("asked", asked), ("composed", made), ("gap", gap))}
    return found


def calibration(readings: Sequence[Reading], hits: Sequence[float]) -> dict[str, Any]:
    """How far the oracle's probabilities can be trusted: ECE (ten equal bins), Brier score, and the risk at each coverage."""
    if not readings:
        return {"ece": None, "brier": None, "risk_coverage": [], "aurc": None}
    said = [min(r.confidence, 1.0) for r in readings]
    bins: dict[int, list[int]] = {}
    for i, value in enumerate(said):
        bins.setdefault(min(int(value * BINS), BINS - 1), []).append(i)
    ece = sum(abs(sum(said[i] - hits[i] for i in members)) for members in bins.values()) / len(said)
    order = sorted(range(len(said)), key=lambda i: -said[i])
    risks, wrong = [], 0.0
    for count, i in enumerate(order, start=1):
        wrong += 1 - hits[i]
        risks.append(wrong / count)
    shares = [k / BINS for k in range(1, BINS + 1)]
    curve = [{"coverage": share, "risk": risks[max(math.ceil(share * len(risks)) - 1, 0)]} for share in shares]
    brier = sum((a - b) ** 2 for a, b in zip(said, hits, strict=True)) / len(said)
    return {"ece": ece, "brier": brier, "risk_coverage": curve, "aurc": sum(risks) / len(risks)}


def slot_part(exam: Exam, hits: Sequence[float], floors: dict[str, Sequence[float]]) -> dict[str, Any]:
    """The two scores for each slot, with floors."""
    found = {}
    for slot in sorted({item.slot for item in exam.items}):
        at = [i for i, item in enumerate(exam.items) if item.slot == slot]
        given: dict[str, Sequence[float]] = {
            name: [floors[name][i] for i in at] for name in ("position_prior", "shuffled_in_stratum")
        }
        found[str(slot)] = gained([hits[i] for i in at], given, exam.test, [exam.items[i] for i in at], exam.seed)
    return found


def answered_part(exam: Exam, hits: Sequence[float]) -> dict[str, Any]:
    """The two scores apart for problems that the run answered rightly and wrongly: a wrong one may not have thought the gold."""
    found = {}
    for name, is_right in (("right", True), ("wrong", False)):
        at = [i for i, item in enumerate(exam.items) if (exam.test.rows[item.problem]["correct"] is True) is is_right]
        found[name] = both_scores([hits[i] for i in at], exam.test, [exam.items[i] for i in at], exam.seed)
    return found


def above_probe(exam: Exam, hits: Sequence[float], probe: Mapping[tuple[str, int], float]) -> dict[str, Any]:
    """``column_step_exact_match`` less what a probe reads of the very same steps, which is beside it as ``probe``.

    What the probe has no word on counts as not read.
    """
    at = [i for i, gold in enumerate(exam.gold) if exam.test.grammar.is_counted(gold)]
    ids = [exam.ids[i] for i in at]
    theirs = [probe.get((exam.ids[i], exam.items[i].step), 0.0) for i in at]
    difference = paired_cluster_difference(theirs, ids, [hits[i] for i in at], ids, seed=exam.seed).as_dict()
    return {**difference, "n": len(at), "probe": score(theirs, ids, seed=exam.seed)}
