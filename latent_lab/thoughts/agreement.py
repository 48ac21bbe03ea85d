"""Does a reader report what the model computes, or what is true? The cases that tell are those in which the model is wrong.

A reader that knows the operands and adds for itself reports the right digit whatever the model thinks; one that reads the thought
reports the model's own wrong digit. A model that is never wrong is made wrong by noise on its thoughts, of a size chosen on
training problems; reader and model then see the same noisy vectors (reading_thoughts: A_err).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latent_lab.batching import collate
from latent_lab.grading.answers import Grading
from latent_lab.grading.evaluate import Solver, evenly
from latent_lab.grading.statistics import paired_cluster_difference
from latent_lab.problems import Problem
from latent_lab.sequences import Encoded
from latent_lab.thoughts.grammar import Grammar
from latent_lab.thoughts.scores import score

Reader = Callable[[Tensor | None, Sequence[int]], Sequence[str]]
"""``reader(vectors [n, width] or None, slots [n])``: the text of a step for each vector (None: without any vector)."""

NOISES = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0, 1.4, 2.0)
"""Sizes of the noise tried, as shares of a thought's length."""
WANTED = 0.35
"""Share of wrong answers that the noise should cause."""


@dataclass(frozen=True)
class Thinking:
    """What a model thought and answered."""

    thoughts: Tensor
    """``[problems, slots, width]``: the vectors fed in, noise and all."""
    answers: list[str | None]
    """The answers found in what it wrote."""


@torch.no_grad()
def think(solver: Solver, problems: Sequence[Encoded], noise: float = 0.0, seed: int = 0) -> Thinking:
    """Let a model answer, with Gaussian noise of ``noise`` times its length added to every thought before it is fed in.

    The noise of a problem depends on ``seed`` and its place among the problems alone.
    """
    width = solver.reasoner.model.config.hidden_size
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(len(problems), solver.num_slots, width, generator=generator) / width**0.5
    fed = torch.zeros(len(problems), solver.num_slots, width)
    answers: list[str | None] = []
    rules: Grading = solver.rules
    first = 0
    for part in evenly(problems, solver.batch_size):
        rows = slice(first, first + len(part))

        def edit(slot: int, thoughts: Tensor, active: Tensor, rows: slice = rows) -> Tensor:
            noisy = thoughts + noise * thoughts.norm(dim=-1, keepdim=True) * drawn[rows, slot].to(thoughts)
            fed[rows, slot] = torch.where(active[:, None], noisy, 0.0).float().cpu()
            return noisy

        batch = collate(solver.prompts(part), solver.backbone.pad).to(solver.reasoner.device)
        eos = solver.backbone.tokenizer.eos_token_id
        new = solver.reasoner.generate(
            batch.input_ids,
            batch.attention_mask,
            max_new_tokens=solver.max_new_tokens,
            eos_token_id=eos,
            pad_token_id=solver.backbone.pad,
            is_closed=batch.is_closed,
            edit=edit,
        )
        for row in new.tolist():
            text = solver.backbone.tokenizer.decode(row[: row.index(eos)] if eos in row else row)
            answers.append(rules.verdict(text, "0", truncated=eos not in row).answer)
        first += len(part)
    return Thinking(fed, answers)


def share_wrong(problems: Sequence[Problem], answers: Sequence[str | None]) -> float:
    """Share of answers that are not the gold text."""
    return sum(a != p.answer for p, a in zip(problems, answers, strict=True)) / max(len(problems), 1)


def noise_that_misleads(solver: Solver, problems: Sequence[Problem], encoded: Sequence[Encoded], seed: int) -> float:
    """The first size of noise that makes at least ``WANTED`` of the answers to (training) problems wrong, else the largest."""
    for noise in NOISES:
        if share_wrong(problems, think(solver, encoded, noise, seed).answers) >= WANTED:
            return noise
    return NOISES[-1]


@dataclass(frozen=True)
class Disagreement:
    """A place where the model's answer shows another value than the gold chain."""

    problem: int
    slot: int
    model: str
    gold: str


def disagreements(
    problems: Sequence[Problem], answers: Sequence[str | None], grammar: Grammar, slot_of_step: Callable[[int], int]
) -> list[Disagreement]:
    """Every step whose value, as the answer shows it, is not the gold one; steps that count only."""
    found = []
    for i, (problem, answer) in enumerate(zip(problems, answers, strict=True)):
        for step, model in grammar.shown(answer or "", len(problem.steps)).items():
            text = problem.steps[step]
            gold = (grammar.parse(text) or {}).get(grammar.primary)
            if grammar.is_counted(text) and gold is not None and gold != model:
                found.append(Disagreement(i, slot_of_step(step), model, gold))
    return found


def agreement_report(
    solver: Solver,
    problems: Sequence[Problem],
    encoded: Sequence[Encoded],
    training: tuple[Sequence[Problem], Sequence[Encoded]],
    grammar: Grammar,
    readers: Mapping[str, Reader],
    *,
    slot_of_step: Callable[[int], int] = lambda step: step,
    least: int = 300,
    seed: int = 0,
) -> dict[str, Any]:
    """For each reader, how often it reports the model's wrong value and how often the gold one: ``{errors, noise, readers}``.

    With fewer than ``least`` natural errors they are made by noise; ``noise`` says how much (0: none was needed). ``training``
    are problems on which the noise is chosen. Each reader has ``model``, ``gold`` (scores), ``difference`` (with its interval,
    problems resampled) and the same ``without`` its vector.
    """
    noise = 0.0
    thinking = think(solver, encoded, 0.0, seed)
    cases = disagreements(problems, thinking.answers, grammar, slot_of_step)
    if len(cases) < least:
        noise = noise_that_misleads(solver, *training, seed=seed + 1)
        thinking = think(solver, encoded, noise, seed)
        cases = disagreements(problems, thinking.answers, grammar, slot_of_step)
    found: dict[str, Any] = {
        "errors": len(cases),
        "noise": noise,
        "wrong": share_wrong(problems, thinking.answers),
        "readers": {},
    }
    if not cases:
        return found
    rows, slots = [c.problem for c in cases], [c.slot for c in cases]
    vectors = thinking.thoughts[rows, slots]
    for name, reader in readers.items():
        found["readers"][name] = {
            **report_of(reader(vectors, slots), cases, problems, grammar, seed),
            "without": report_of(reader(None, slots), cases, problems, grammar, seed),
        }
    return found


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
