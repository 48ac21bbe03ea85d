"""The questions of an oracle that are not about one step: the answer, the problem, and statements that hold or do not."""

import random
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from latent_lab.grading.answers import is_equal
from latent_lab.thoughts.oracle import Oracle
from latent_lab.thoughts.oracle_scores import bits_part, cross_entropy, hits_of, most_frequent, thoughts
from latent_lab.thoughts.questions import NO, YES, Material, same_problem, statements
from latent_lab.thoughts.scores import score, with_floor

CANDIDATES = 16
"""Answers that bits are counted over."""
ROOM = 4


def drawn(material: Material, seed: int, most: int) -> list[int]:
    """Numbers of at most so many problems, in an order drawn from ``seed``."""
    order = list(range(len(material.rows)))
    random.Random(f"{seed}/others").shuffle(order)
    return order[:most]


def answer_part(oracle: Oracle, train: Material, test: Material, seed: int, most: int) -> dict[str, Any]:
    """The answer, from the last thought and from all thoughts: exact, on policy (the run's own answer), floors, bits."""
    if not oracle.options.tasks.get("answer") or "answer" not in oracle.writer.wordings:
        return {}
    chosen = drawn(test, seed, most)
    ids = [test.rows[i]["id"] for i in chosen]
    gold = [test.rows[i]["gold"] for i in chosen]
    own = [test.rows[i]["answer"] or "" for i in chosen]
    always = most_frequent([row["gold"] for row in train.rows])
    question = oracle.writer.questions("answer")[0]
    room = max(len(oracle.writer.target(row["gold"])) for row in train.rows) + ROOM
    none = [r.text for r in oracle.ask(None, [question] * len(chosen), room)]
    found = {}
    ways = {"all": test.all} | ({"last": test.last} if oracle.options.thoughts == "one" else {})
    for name, slots in ways.items():
        real = [test.vectors(i, slots(i)) for i in chosen]
        said = {"real": real, "shuffled": real[1:] + real[:1]}
        texts = {source: [r.text for r in oracle.ask(rows, [question] * len(rows), room)] for source, rows in said.items()}
        floors = {"constant": [always] * len(gold), "none": none, "shuffled": texts["shuffled"]}
        found[name] = {
            **with_floor(right(texts["real"], gold), {f: right(t, gold) for f, t in floors.items()}, ids, seed=seed),
            "on_policy": score(right(texts["real"], own), ids, seed=seed),
            "bits": answer_bits(oracle, question, said, gold, ids, seed),
        }
    return found


def right(said: Sequence[str], gold: Sequence[str]) -> list[float]:
    """1.0 where two answers are the same text or number."""
    return [float(a == b or is_equal(a, b) is True) for a, b in zip(said, gold, strict=True)]


def answer_bits(
    oracle: Oracle, question: Any, said: dict[str, list[Tensor]], gold: Sequence[str], ids: Sequence[str], seed: int
) -> dict[str, Any]:
    """Bits over the first different answers, for the problems whose answer is among them."""
    candidates = sorted(dict.fromkeys(gold[:CANDIDATES]))
    kept = [i for i, text in enumerate(gold) if text in candidates][: 2 * CANDIDATES]
    if len(candidates) < 2:
        return {}
    sources: dict[str, list[Tensor] | None] = {name: [rows[i] for i in kept] for name, rows in said.items()} | {"none": None}
    entropies = {
        name: cross_entropy(oracle.score(rows, [question] * len(kept), candidates), candidates, [gold[i] for i in kept])
        for name, rows in sources.items()
    }
    return {**bits_part(entropies, [ids[i] for i in kept], seed), "candidates": len(candidates)}


def problem_part(oracle: Oracle, test: Material, seed: int, most: int) -> dict[str, Any]:
    """The problem's text, from all thoughts."""
    if not oracle.options.tasks.get("problem") or "problem" not in oracle.writer.wordings:
        return {}
    chosen = drawn(test, seed, most)
    question = oracle.writer.questions("problem")[0]
    gold = [test.rows[i]["question"] for i in chosen]
    room = max(len(oracle.writer.target(text)) for text in gold) + ROOM
    real = [test.vectors(i, test.all(i)) for i in chosen]
    texts = {
        name: [r.text for r in oracle.ask(rows, [question] * len(chosen), room)]
        for name, rows in (("real", real), ("shuffled", real[1:] + real[:1]), ("none", None))
    }
    floors: dict[str, Sequence[float]] = {name: hits_of(texts[name], gold) for name in ("shuffled", "none")}
    return with_floor(hits_of(texts["real"], gold), floors, [test.rows[i]["id"] for i in chosen], seed=seed)


def yes_no_part(oracle: Oracle, train: Material, test: Material, seed: int, most: int) -> dict[str, Any]:
    """Statements, as many that hold as do not; chance is one half. The statements are those of training."""
    if not oracle.options.tasks.get("yes_no") or "yes_no" not in oracle.writer.wordings:
        return {}
    rng, found = random.Random(f"{seed}/yes_no"), {}
    wanted = [*statements(train.labels), ("same", None)]
    for text, holds in wanted:
        truths: dict[bool, list[int]] = {True: [], False: []}
        for i, fields in enumerate(test.labels):
            said = holds(fields) if holds is not None else i % 2 == 0
            if said is not None:
                truths[said].append(i)
        count = min(most // 4, len(truths[True]), len(truths[False]))
        if not count:
            continue
        chosen = [(i, is_true) for is_true, pool in truths.items() for i in rng.sample(pool, count)]
        items = [test.items[i] for i, _ in chosen]
        abouts = [
            text if holds is not None else same_problem(test, item.problem, is_true, rng)
            for item, (_, is_true) in zip(items, chosen, strict=True)
        ]
        numbered = oracle.options.thoughts == "all"
        questions = [
            oracle.writer.questions("yes_no", about, number=item.step + 1 if numbered else None)[0]
            for about, item in zip(abouts, items, strict=True)
        ]
        real = thoughts(oracle, test, items)
        shift = [real[(k + 1 + rng.randrange(len(real) - 1)) % len(real)] for k in range(len(real))]
        hits = {
            name: [
                float(said == is_true)
                for said, (_, is_true) in zip(says_yes(oracle.score(rows, questions, [YES, NO])), chosen, strict=True)
            ]
            for name, rows in (("real", real), ("shuffled", shift), ("none", None))
        }
        floors: dict[str, Sequence[float]] = {"shuffled": hits["shuffled"], "none": hits["none"], "chance": [0.5] * len(chosen)}
        found[text] = with_floor(hits["real"], floors, [test.rows[item.problem]["id"] for item in items], seed=seed)
    return found


def says_yes(scores: Tensor) -> list[bool]:
    """Whether yes is the likelier of the two."""
    return (scores[:, 0] > scores[:, 1]).tolist()
