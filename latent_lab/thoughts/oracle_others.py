"""The questions of an oracle that are not about one step: the answer, the problem, and statements that hold or do not."""

import random
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from latent_lab.grading.answers import is_equal
from latent_lab.thoughts.foretold import FEWEST, Foretold, foretold, sides
from latent_lab.thoughts.oracle import Oracle
from latent_lab.thoughts.oracle_scores import bits_part, cross_entropy, hits_of, most_frequent, thoughts
from latent_lab.thoughts.questions import NO, YES, Material, Question, same_problem, statements
from latent_lab.thoughts.scores import auc, score, with_floor

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
        asked = {"real": real, "shuffled": others(real, rng), "none": None}
        scored = {name: oracle.score(rows, questions, [YES, NO]) for name, rows in asked.items()}
        ids = [test.rows[item.problem]["id"] for item in items]
        found[text] = told(scored, [is_true for _, is_true in chosen], ids, seed)
    return found


def foretold_part(oracle: Oracle, train: Material, test: Material, seed: int, most: int) -> dict[str, Any]:
    """What the run is about to answer, asked of all its thoughts before it does: by kind, how often yes and no are right.

    Each statement is asked as often where it holds as where it does not. Beside the floors: ``from_text``, the same oracle on the
    problem's text and no thought, and ``above_text``, how much more thoughts give; ``auc`` says for every source how often a
    problem for which a statement holds is thought likelier to be one than a problem for which it does not.
    """
    if not oracle.options.tasks.get("foretell") or "foretell" not in oracle.writer.wordings:
        return {}
    rng = random.Random(f"{seed}/foretell")
    return {kind: foretold_kind(oracle, test, stated, rng, seed, most) for kind, stated in foretold(train.rows).items()}


def foretold_kind(
    oracle: Oracle, test: Material, stated: Sequence[Foretold], rng: random.Random, seed: int, most: int
) -> dict[str, Any]:
    """One kind of :func:`foretold_part`."""
    chosen: list[tuple[str, int, bool]] = []
    for text, holds in stated:
        problems = sides(test.rows, holds)
        count = min(-(-most // (2 * len(stated))), *map(len, problems.values()))
        chosen += [(text, i, side) for side, these in problems.items() for i in rng.sample(these, count)]
    if not chosen:
        untaught = f"it takes {FEWEST} training problems on either side, and one to be read"
        return {**score([], [], seed=seed), "why": "the problems that were read lie on one side" if stated else untaught}
    questions: list[Question] = [oracle.writer.questions("foretell", text)[0] for text, _, _ in chosen]
    real = [test.vectors(i, test.all(i)) for _, i, _ in chosen]
    asked = {"real": real, "shuffled": others(real, rng), "none": None}
    scored = {name: oracle.score(rows, questions, [YES, NO]) for name, rows in asked.items()}
    texts = [test.rows[i]["question"] for _, i, _ in chosen]
    scored["text_only"] = oracle.score(None, questions, [YES, NO], text=texts)
    truths, ids = [side for _, _, side in chosen], [test.rows[i]["id"] for _, i, _ in chosen]
    ranked = {name: auc((given[:, 0] - given[:, 1]).tolist(), truths) for name, given in scored.items()}
    hits, from_text = (right_said(scored[name], truths) for name in ("real", "text_only"))
    beside = {
        "from_text": score(from_text, ids, seed=seed),
        "above_text": score([a - b for a, b in zip(hits, from_text, strict=True)], ids, seed=seed),
    }
    return {**told({name: scored[name] for name in asked}, truths, ids, seed), **beside, "auc": ranked}


def others(vectors: Sequence[Tensor], rng: random.Random) -> list[Tensor]:
    """For each entry the vectors of another one, drawn."""
    return [vectors[(k + 1 + rng.randrange(len(vectors) - 1)) % len(vectors)] for k in range(len(vectors))]


def right_said(scored: Tensor, truths: Sequence[bool]) -> list[float]:
    """1.0 where the likelier of yes and no is the truth."""
    return [float(said == is_true) for said, is_true in zip((scored[:, 0] > scored[:, 1]).tolist(), truths, strict=True)]


def told(scored: dict[str, Tensor], truths: Sequence[bool], ids: Sequence[str], seed: int) -> dict[str, Any]:
    """How often the likelier of yes and no is right, beside the same from sources that are floors, and chance."""
    hits = {name: right_said(given, truths) for name, given in scored.items()}
    floors: dict[str, Sequence[float]] = {name: each for name, each in hits.items() if name != "real"}
    return with_floor(hits["real"], floors | {"chance": [0.5] * len(truths)}, ids, seed=seed)
