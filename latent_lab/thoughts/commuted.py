"""Commuted operands: exchanges that must change nothing, and what readers say of operands before and after.

``b + a`` has every digit and every carry of ``a + b``. Put what the model holds of one of its columns in the place of what it
holds of that column of ``a + b``, and the answer has to stay; where it does not, exchanging harms by itself, whatever the donor
says. What does change is the order of the operands: a reader whose words follow it reads operands, and one whose total and digit
stay right while its operands do not follow reads a result.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latent_lab.grading.evaluate import Solver, evenly
from latent_lab.problems import Problem
from latent_lab.sequences import Encoded
from latent_lab.thoughts.agreement import Reader
from latent_lab.thoughts.columns import Condition, Encoder, exchange_all, slots_of_step, table_of
from latent_lab.thoughts.editing import write_all
from latent_lab.thoughts.grammar import ADDITION
from latent_lab.thoughts.pairs import COMMUTED, Columns, Pair, commuted_pairs
from latent_lab.thoughts.scores import score, scores

RESULTS = ("total", "write")
"""Fields of a column that do not change when its operands are exchanged."""


def commuted_report(
    solver: Solver,
    problems: Sequence[Problem],
    readers: Mapping[str, Reader],
    *,
    encoder: Encoder,
    slot_of_step: Callable[[int], int] = lambda step: step,
    seed: int = 0,
    most: int = 100,
) -> dict[str, Any]:
    """How often an answer stays when a column is exchanged with that of the same sum, its operands exchanged.

    For each of ``COMMUTED`` and each kind of exchange a table of rows ``{n, keep}`` (laid out by
    :func:`latent_lab.thoughts.columns.table_of`), of ``most`` pairs for each number of digits and column. Problems the model gets
    wrong are left out, and so are pairs whose donor it gets wrong (``excluded``). ``readers`` has what each of them says of the
    thoughts before and after: :func:`said_of`. ValueError where a problem is no sum of two equally long numbers.
    """
    encoded = encoder(problems)
    known = {p.id: e for p, e in zip(problems, encoded, strict=True)}
    clean = write_all(solver, problems, encoded)
    by_digits: dict[int, list[Problem]] = {}
    for p, is_right in zip(problems, clean.correct, strict=True):
        if is_right:
            by_digits.setdefault(len(Columns.of(p).a), []).append(p)
    wanted = [p for digits in sorted(by_digits) for p in commuted_pairs(by_digits[digits], most, seed)]
    donors = list({p.donor.id: p.donor for p in wanted}.values())
    known |= {p.id: e for p, e in zip(donors, encoder(donors), strict=True)}
    fit = [p for p in wanted if slots_of_step(solver, known[p.recipient.id], p.column, solver.num_slots)]
    feeds = solver.reasoner.loop.feeds == "thoughts"
    kinds = [Condition(kind) for kind in ("cache", "step", "thought") if feeds or kind != "thought"]
    items = [(known[p.recipient.id], known[p.donor.id], p.column) for p in fit]
    made = exchange_all(solver, items, kinds, seed=seed, most_tokens=max(map(len, clean.ids), default=1) + 4)
    kept = [i for i, p in enumerate(fit) if made.donors[i] == p.donor.answer]
    excluded = {"no_slot": len(wanted) - len(fit), "donor_wrong": len(fit) - len(kept)}
    report: dict[str, Any] = {"right": sum(clean.correct), "excluded": excluded}
    for way in COMMUTED:
        some = [i for i in kept if fit[i].donors == way]
        told = [fit[i] for i in some]
        for kind in kinds if some else ():
            report.setdefault(way, {})[kind.name] = table_of(told, Stays(told, [made.answers[kind.name][i] for i in some]))
    whole = [fit[i] for i in kept if fit[i].donors == "commuted"]
    if readers and whole and feeds:
        report["readers"] = said_of(solver, whole, known, readers, slot_of_step, seed)
    return report


@dataclass(frozen=True)
class Stays:
    """How often answers are still the recipients' own."""

    pairs: Sequence[Pair]
    answers: Sequence[str | None]

    def __call__(self, places: Sequence[int]) -> dict[str, Any]:
        """The row of some of the pairs."""
        keep = [float(self.answers[i] == self.pairs[i].recipient.answer) for i in places]
        return {"n": len(places), "keep": score(keep, [self.pairs[i].recipient.id for i in places])}


def said_of(
    solver: Solver,
    pairs: Sequence[Pair],
    known: Mapping[str, Encoded],
    readers: Mapping[str, Reader],
    slot_of_step: Callable[[int], int],
    seed: int,
) -> dict[str, Any]:
    """What readers say of each pair's column, from the recipient's thought (``before``) and from the donor's (``after``).

    Scores, for each reader: ``operands`` both as they stand in the recipient, ``exchanged`` as they stand in the donor (both, in
    that order), and each of ``RESULTS`` as it is in either.
    """
    slots = [slot_of_step(p.column) for p in pairs]
    thoughts = {
        "before": thoughts_of(solver, [known[p.recipient.id] for p in pairs], slots),
        "after": thoughts_of(solver, [known[p.donor.id] for p in pairs], slots),
    }
    return {
        name: {when: of_columns(read(vectors, slots), pairs, seed) for when, vectors in thoughts.items()}
        for name, read in readers.items()
    }


def of_columns(texts: Sequence[str], pairs: Sequence[Pair], seed: int) -> dict[str, Any]:
    """Scores of texts that should say the pairs' columns; see :func:`said_of`."""
    hits = []
    for text, p in zip(texts, pairs, strict=True):
        said = ADDITION.parse(text) or {}
        there, digits = ADDITION.parse(p.donor.steps[p.column]) or {}, (said.get("a"), said.get("b"))
        results = (said.get(key) == there[key] for key in RESULTS)
        is_what = (digits == (there["b"], there["a"]), digits == (there["a"], there["b"]), *results)
        hits.append([float(hit) for hit in is_what])
    rows = scores(list(zip(*hits, strict=True)), [p.recipient.id for p in pairs], seed=seed)
    return dict(zip(("operands", "exchanged", *RESULTS), rows, strict=True))


def thoughts_of(solver: Solver, encoded: Sequence[Encoded], slots: Sequence[int]) -> Tensor:
    """``[problems, width]``: of each problem the thought in one slot."""
    parts = [solver.thoughts(part).cpu() for part in evenly(encoded, solver.batch_size)]
    most = max(part.shape[1] for part in parts)
    whole = torch.cat([torch.nn.functional.pad(part, (0, 0, 0, most - part.shape[1])) for part in parts])
    return whole[torch.arange(len(slots)), torch.tensor(slots)]
