"""The page's explorer: problems thought by thought, with what readers say, and the answer after this one thought is changed."""

from collections.abc import Sequence
from typing import Any

import torch

from latent_lab.problems import Problem
from latent_lab.progress import progress
from latent_lab.report.play import Edit, Player, expected
from latent_lab.thoughts.grammar import Grammar


def examples(
    player: Player,
    pairs: Sequence[tuple[Problem, Problem]],
    grammar: Grammar,
    *,
    steps: Sequence[Sequence[str | None]] | None = None,
) -> list[dict[str, Any]]:
    """What :func:`latent_lab.report.thoughts_page.write_page` takes, of ``(problem, donor)`` pairs.

    ``steps[i][k]`` is what thought k of problem i stands for (None and empty: nothing); by default its step k.
    """
    found = []
    with progress("exploring", len(pairs), unit="problems") as advance:
        for place, (problem, donor) in enumerate(pairs):
            gold = steps[place] if steps is not None else problem.steps
            found.append(example(player, problem, donor, grammar, gold))
            advance(1)
    return found


def example(player: Player, problem: Problem, donor: Problem, grammar: Grammar, gold: Sequence[str | None]) -> dict[str, Any]:
    """One problem, thought by thought; swaps take the donor's thought of the same number."""
    encoded, other = player.encode(problem), player.encode(donor)
    count = player.at.solver.slots_of([encoded])[0]
    answer, thoughts = player.answer(encoded, count)
    donor_answer, donated = player.answer(other, count)
    said = [(reader.name, reader.read(thoughts)) for reader in player.readers]
    is_fed = player.at.solver.reasoner.loop.feeds == "thoughts"
    slots = []
    for slot in range(1, count + 1):
        step = (gold[slot - 1] if slot <= len(gold) else "") or ""
        readings = [
            {"reader": name, "text": text, "confidence": sure, "right": is_right(text, step, grammar)}
            for name, (text, sure) in ((name, each[slot - 1]) for name, each in said)
        ]
        edits: dict[str, Any] = {"removed": {"answer": player.edited(encoded, count, [Edit("remove", slot)])[0]}}
        if is_fed:
            swapped = player.answer(encoded, count, {slot: donated[slot - 1]})[0]
            edits["swapped"] = {"answer": swapped, "expected": expected(problem, [Edit("swap", slot, donor.question)])}
            edits["zeroed"] = {"answer": player.answer(encoded, count, {slot: torch.zeros(())})[0]}
        slots.append({"slot": slot, "gold": step, "readings": readings, **edits})
    same = player.at.solver.rules.equivalence.same
    return {
        "id": problem.id,
        "question": problem.question,
        "gold": problem.answer,
        "answer": answer,
        "right": same(answer, problem.answer) is True,
        "donor": {"question": donor.question, "answer": donor_answer},
        "slots": slots,
    }


def is_right(text: str, step: str, grammar: Grammar) -> bool:
    """Whether a reading is a step: the same text, or only fields, as ``a 7, b 5``, that are all the step's."""
    if text == step:
        return True
    fields = grammar.parse(step) if step else None
    pairs = [part.strip().rpartition(" ") for part in text.split(",")]
    names = [name.replace(" ", "_") for name, _, _ in pairs]
    if not fields or not all(name in grammar.values for name in names):
        return False
    return all(fields.get(name, value) == value for name, (_, _, value) in zip(names, pairs, strict=True))
