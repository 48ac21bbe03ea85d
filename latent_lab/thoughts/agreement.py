"""Does a reader report what the model computes, or what is true? The cases that tell are those in which the model is wrong.

A reader that knows the operands and adds for itself reports the right value whatever the model thinks; one that reads the
thought reports the model's own wrong one. A model that is never wrong is misled: one of its thoughts is replaced
by another problem's before it is fed in, and the model thinks on from there. What it then thinks of *later* steps is its own, and
often wrong; those thoughts are read. (Noise does not do: thoughts stand noise longer than their own length, and what breaks then
breaks at random.)
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latent_lab.edits import Edits
from latent_lab.grading.evaluate import Solver, evenly
from latent_lab.grading.statistics import paired_cluster_difference
from latent_lab.problems import Problem
from latent_lab.sequences import Encoded
from latent_lab.thoughts.editing import Prompts, write
from latent_lab.thoughts.grammar import Grammar
from latent_lab.thoughts.scores import score

Reader = Callable[[Tensor | None, Sequence[int]], Sequence[str]]
"""``reader(vectors [n, width] or None, slots [n])``: the text of a step for each vector (None: without any vector)."""


MOST_ROUNDS = 24
"""Times each problem is misled at most."""


@dataclass(frozen=True)
class Thinking:
    """What a model thought and answered."""

    thoughts: Tensor
    """``[problems, slots, width]``: the vectors fed in, exchanged ones too."""
    answers: list[str | None]
    """The answers found in what it wrote."""


@dataclass(frozen=True)
class Exchange:
    """One thought of each problem replaced by another problem's."""

    slots: Tensor
    """``[problems]``: which."""
    vectors: Tensor
    """``[problems, width]``: by what."""


def think(solver: Solver, problems: Sequence[Problem], encoded: Sequence[Encoded], exchange: Exchange | None = None) -> Thinking:
    """Let a model answer, with one thought of each problem exchanged before it is fed in; later ones follow from it."""
    fed = torch.zeros(len(problems), solver.num_slots, solver.reasoner.model.config.hidden_size)
    answers: list[str | None] = []
    first = 0
    for part in evenly(list(zip(problems, encoded, strict=True)), solver.batch_size):
        rows = slice(first, first + len(part))

        def edit(slot: int, thoughts: Tensor, active: Tensor, rows: slice = rows) -> Tensor:
            if exchange is not None:
                here = (exchange.slots[rows] == slot)[:, None].to(thoughts.device)
                thoughts = torch.where(here, exchange.vectors[rows].to(thoughts), thoughts)
            fed[rows, slot] = torch.where(active[:, None], thoughts, 0.0).float().cpu()
            return thoughts

        answers += write(Prompts(solver, [e for _, e in part]), [p.answer for p, _ in part], Edits(thought=edit)).answers
        first += len(part)
    return Thinking(fed, answers)


def misled(thinking: Thinking, problems: Sequence[Problem], slot_of_step: Callable[[int], int], seed: int) -> Exchange:
    """For each problem with two steps or more, the thought of one of its steps but the last is exchanged.

    It is drawn with the seed, and so is its donor: a problem with as many steps, of the same length of question where there are
    such. Problems of one step keep their own (slot -1).
    """
    rng = random.Random(f"misled/{seed}")
    alike: dict[tuple[int, int], list[int]] = {}
    for i, problem in enumerate(problems):
        alike.setdefault((len(problem.steps), len(problem.question)), []).append(i)
    slots, donors = [], []
    for i, problem in enumerate(problems):
        pool = alike[len(problem.steps), len(problem.question)]
        is_possible = len(problem.steps) > 1 and len(pool) > 1
        slots.append(slot_of_step(rng.randrange(len(problem.steps) - 1)) if is_possible else -1)
        donors.append(pool[(pool.index(i) + rng.randrange(1, len(pool))) % len(pool)] if is_possible else i)
    chosen = torch.tensor(slots)
    return Exchange(chosen, thinking.thoughts[torch.tensor(donors), chosen.clamp(min=0)])


@dataclass(frozen=True)
class Disagreement:
    """A place where the model's answer shows another value than the gold chain."""

    problem: int
    slot: int
    model: str
    gold: str


def disagreements(
    problems: Sequence[Problem],
    answers: Sequence[str | None],
    grammar: Grammar,
    slot_of_step: Callable[[int], int],
    after: Sequence[int] | None = None,
) -> list[Disagreement]:
    """Every step whose value, as the answer shows it, is not the gold one; of steps that count, in slots ``after``."""
    found = []
    for i, (problem, answer) in enumerate(zip(problems, answers, strict=True)):
        for step, model in grammar.shown(answer or "", len(problem.steps)).items():
            text, slot = problem.steps[step], slot_of_step(step)
            gold = (grammar.parse(text) or {}).get(grammar.primary)
            if grammar.is_counted(text) and gold is not None and gold != model and (after is None or slot > after[i] >= 0):
                found.append(Disagreement(i, slot, model, gold))
    return found


def thoughts_at(thinking: Thinking, cases: Sequence[Disagreement]) -> Tensor:
    """``[cases, width]``: the thoughts of the steps the model has wrong."""
    places = torch.tensor([(c.problem, c.slot) for c in cases], dtype=torch.long).view(-1, 2)
    return thinking.thoughts[places[:, 0], places[:, 1]]


def agreement_report(
    solver: Solver,
    problems: Sequence[Problem],
    encoded: Sequence[Encoded],
    grammar: Grammar,
    readers: Mapping[str, Reader],
    *,
    slot_of_step: Callable[[int], int] = lambda step: step,
    least: int = 300,
    seed: int = 0,
) -> dict[str, Any]:
    """How often each reader reports the model's wrong value, and how often the gold one: ``{errors, made, wrong, readers}``.

    With fewer than ``least`` natural errors the model is misled (``made``: how often each problem was, 0 for not at all), again
    and again with other thoughts, until there are enough. Each reader has ``model``, ``gold`` (scores), ``difference`` (with its
    interval, problems resampled) and the same ``without`` its vector.
    """
    clean = think(solver, problems, encoded)
    cases = disagreements(problems, clean.answers, grammar, slot_of_step)
    vectors = [thoughts_at(clean, cases)]
    answers, made = clean.answers, 0
    if len(cases) < least:
        cases, vectors, answers = [], [], []
        while made < MOST_ROUNDS and len(cases) < least:
            exchange = misled(clean, problems, slot_of_step, seed + made)
            thinking = think(solver, problems, encoded, exchange)
            found = disagreements(problems, thinking.answers, grammar, slot_of_step, exchange.slots.tolist())
            vectors.append(thoughts_at(thinking, found))
            cases, answers, made = [*cases, *found], [*answers, *thinking.answers], made + 1
    gold = [p.answer for p in problems] * max(made, 1)
    wrong = sum(a != g for a, g in zip(answers, gold, strict=True)) / max(len(gold), 1)
    report: dict[str, Any] = {"errors": len(cases), "made": made, "wrong": wrong, "readers": {}}
    if not cases:
        return report
    read, slots = torch.cat(vectors), [c.slot for c in cases]
    for name, reader in readers.items():
        report["readers"][name] = {
            **report_of(reader(read, slots), cases, problems, grammar, seed),
            "without": report_of(reader(None, slots), cases, problems, grammar, seed),
        }
    return report


def report_of(
    texts: Sequence[str], cases: Sequence[Disagreement], problems: Sequence[Problem], grammar: Grammar, seed: int
) -> dict[str, Any]:
    """How often what was read is the model's value and how often the gold one, and the difference of the two."""
    said = [(grammar.parse(text) or {}).get(grammar.primary) for text in texts]
    model = [float(s == c.model) for s, c in zip(said, cases, strict=True)]
    gold = [float(s == c.gold) for s, c in zip(said, cases, strict=True)]
    ids = [problems[c.problem].id for c in cases]
    difference = paired_cluster_difference(gold, ids, model, ids, seed=seed).as_dict()
    return {"model": score(model, ids, seed=seed), "gold": score(gold, ids, seed=seed), "difference": difference}
