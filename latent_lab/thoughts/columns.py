"""Column interchange: put one column of another sum's thinking in, and see whether the answer follows, digit by digit.

Two sums with as many digits; what the recipient holds of one column is replaced by what the donor holds, and what the answer
should become is worked out by hand (interchange interventions, Geiger et al. 2021, arXiv 2106.02997; the targets and the three
conditions of arXiv 2608.27265). Kinds of exchange and their targets:

``cache``: what the column's slot is remembered by, after all thoughts are thought; the answer should change in that digit and in
nothing else. ``step``: the same for what the column's *thought* is remembered by (:data:`latent_lab.thoughts.editing.KINDS`);
it differs where later blocks at a slot hold the next thought already, and the answer reads it there. ``thought``: the vector is
exchanged before it is fed in; digit *and* carry are the donor's, and later columns are added anew. ``residual``: the state at the
slot after a block, which is on its way to the next thought: the target is that of the next column's thought.

Independent donors are other problems: their whole answer competes with the target, so only a thought that holds its own column
and nothing else can win. In the last column they leave the same final carry, which is a digit of the answer, too, and may be read
from two slots; ``last_column`` holds the others, ``final_carry`` exchanges the slot after the last column. Minimal donors differ
in one digit of the column (``same_carry``, ``flipped_carry``). The necessity of what is exchanged: the same exchange with noise
as long as the donor's vectors, or with another of the donor's slots.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latent_lab.edits import Edits, Recorder
from latent_lab.grading.evaluate import Solver, evenly
from latent_lab.problems import Problem
from latent_lab.sequences import Encoded, encode
from latent_lab.thoughts.editing import Prompts, exchange, hooks, noisy, write, write_all
from latent_lab.thoughts.pairs import APART, Columns, Pair, independent_pairs, minimal_pairs
from latent_lab.thoughts.scores import scores

OUTCOMES = ("target", "donor", "keep", "other")
"""What an answer can be: the worked-out target, the donor's answer, the recipient's as it was, or anything else."""
CHANCE = 1 / 9
"""How often a digit that must change hits the target by chance."""
Encoder = Callable[[Sequence[Problem]], list[Encoded]]


# Exchanges


@dataclass(frozen=True)
class Condition:
    """One way of exchanging."""

    kind: str
    """See :data:`latent_lab.thoughts.editing.KINDS`."""
    block: int | None = None
    """Residuals: the block after which they are exchanged."""
    source: str = "donor"
    """``donor``; ``noise`` as long as the donor's vectors; ``other_slot``: the donor's, of a slot drawn from the others."""

    @property
    def name(self) -> str:
        """For reports."""
        place = f"{self.kind}_{self.block}" if self.block else self.kind
        return place if self.source == "donor" else f"{place}/{self.source}"


def slots_of_step(solver: Solver, problem: Encoded, step: int, num_slots: int) -> list[int]:
    """The slots that stand for a step; for the one after a chain's last, the first slots that stand for nothing.

    Empty where the step is written instead, or has no slot.
    """
    stands = solver.layout.sequence(problem, solver.backbone.tokens, solver.stage).step_of_slot[:num_slots]
    stands = (*stands, *[None] * (num_slots - len(stands)))
    found = [slot for slot, what in enumerate(stands) if what == step]
    if found or step < len(problem.steps):
        return found
    per_step = max((stands.count(0), 1))
    return [slot for slot, what in enumerate(stands) if what is None][:per_step]


@dataclass(frozen=True)
class Exchanged:
    """What came of exchanges, one entry a pair."""

    answers: dict[str, list[str | None]]
    """By condition."""
    donors: list[str | None]
    """What the model itself answers to the donor."""


def exchange_all(
    solver: Solver,
    pairs: Sequence[tuple[Encoded, Encoded, int]],
    conditions: Sequence[Condition],
    *,
    seed: int = 0,
    most_tokens: int | None = None,
) -> Exchanged:
    """The model's answers under exchanges; each pair is ``(recipient, donor, step)``, and donors are run once for all conditions.

    Recipient and donor should be equally long: what a slot holds may depend on where it stands.
    """
    generator = torch.Generator().manual_seed(seed)
    answers: dict[str, list[str | None]] = {condition.name: [None] * len(pairs) for condition in conditions}
    donors: list[str | None] = [None] * len(pairs)
    kinds = sorted({condition.kind for condition in conditions})
    # Pairs that share a recipient stand together: it thinks once for all of them.
    order = sorted(range(len(pairs)), key=lambda i: (len(pairs[i][0].question), pairs[i][0].id, pairs[i][1].id))
    for part in evenly(order, solver.batch_size):
        mine, others = once([pairs[i][0] for i in part]), once([pairs[i][1] for i in part])
        recipients, given = Prompts(solver, mine.problems), Prompts(solver, others.problems)
        kept = Recorder()
        written = write(given, [""] * len(others.problems), edits_of(hooks(solver, kept, kinds)), most_tokens=most_tokens)
        kept = kept.rows(torch.tensor(others.rows))
        counts = [min(recipients.counts[r], given.counts[d]) for r, d in zip(mine.rows, others.rows, strict=True)]
        chosen = torch.zeros(len(part), max(recipients.counts), dtype=torch.bool)
        for row, i in enumerate(part):
            donors[i] = written.answers[others.rows[row]]
            chosen[row, slots_of_step(solver, pairs[i][0], pairs[i][2], counts[row])] = True
        chosen = chosen.to(solver.reasoner.device)
        for condition in conditions:
            edits = exchange(condition.kind, sourced(kept, condition.source, chosen, counts, generator), chosen, condition.block)
            made = write(recipients, [""] * len(part), edits, rows=torch.tensor(mine.rows), most_tokens=most_tokens)
            for i, answer in zip(part, made.answers, strict=True):
                answers[condition.name][i] = answer
    return Exchanged(answers, donors)


@dataclass(frozen=True)
class Once:
    """Problems without repetition, and the row of each of those given."""

    problems: list[Encoded]
    rows: list[int]


def once(problems: Sequence[Encoded]) -> Once:
    """Keep each problem once, in the order of first occurrence."""
    place = {p.id: i for i, p in enumerate({p.id: p for p in problems}.values())}
    return Once(list({p.id: p for p in problems}.values()), [place[p.id] for p in problems])


def exchange_answers(
    solver: Solver,
    pairs: Sequence[tuple[Encoded, Encoded, int]],
    *,
    kind: str = "cache",
    block: int | None = None,
    source: str = "donor",
    seed: int = 0,
) -> list[str | None]:
    """The model's answer to each recipient when the slots of one step are exchanged; pairs are ``(recipient, donor, step)``."""
    condition = Condition(kind, block, source)
    return exchange_all(solver, pairs, [condition], seed=seed).answers[condition.name]


def edits_of(arguments: dict[str, Any]) -> Edits:
    """The edits that the arguments of a forward stand for."""
    return Edits(arguments.get("edit"), arguments.get("edit_cache"), arguments.get("edit_residual"))


def sourced(kept: Recorder, source: str, chosen: Tensor, counts: Sequence[int], generator: torch.Generator) -> Recorder:
    """What the chosen slots are given: see :attr:`Condition.source`."""
    if source == "donor":
        return kept
    if source == "noise":
        return noisy(kept, generator)
    if source != "other_slot":
        raise ValueError(f"source={source}: allowed are donor, noise, other_slot")
    slots = torch.arange(chosen.shape[1], device=chosen.device)
    drawn = torch.rand(chosen.shape, generator=generator).to(chosen.device)
    is_there = slots < torch.tensor(counts, device=chosen.device)[:, None]
    other = drawn.masked_fill(chosen | ~is_there, -1.0).argmax(1)
    rows = torch.arange(len(chosen), device=chosen.device)

    def everywhere(held: Tensor) -> Tensor:
        return held[rows, :, other][:, :, None].expand_as(held)

    def vectors(of: dict[Any, Tensor], name: Callable[[int], Any]) -> Tensor:
        return torch.stack([of[name(slot)] for slot in range(chosen.shape[1])], 1)[rows, other]

    made = Recorder()
    made.keys = {block: everywhere(held) for block, held in kept.keys.items()}
    made.values = {block: everywhere(held) for block, held in kept.values.items()}
    if kept.thoughts:
        made.thoughts = dict.fromkeys(kept.thoughts, vectors(kept.thoughts, lambda slot: slot))
    for block in {block for _, block in kept.residuals}:
        one = vectors(kept.residuals, lambda slot, block=block: (slot, block))  # type: ignore[misc]
        made.residuals |= {(slot, block): one for slot in range(chosen.shape[1])}
    return made


# The report


def outcome(answer: str | None, target: str, donor: str | None, keep: str) -> tuple[bool, ...]:
    """Which of ``OUTCOMES`` an answer is; the target first, where a donor's answer is the target itself."""
    found = [answer == target, answer == donor, answer == keep]
    first = found.index(True) if any(found) else 3
    return tuple(i == first for i in range(4))


NAMES = (*OUTCOMES, "digit", "composed", "next")


@dataclass(frozen=True)
class Rows:
    """Scores of each outcome, and of each worked-out answer by itself."""

    pairs: Sequence[Pair]
    answers: Sequence[str | None]
    kind: str

    def __call__(self, places: Sequence[int]) -> dict[str, Any]:
        """The row of some of the pairs."""
        hits = []
        for p, answer in ((self.pairs[i], self.answers[i]) for i in places):
            worked_out = (answer == p.digit, answer == p.composed, answer == p.next)
            hits.append((*outcome(answer, p.target(self.kind), p.donor.answer, p.recipient.answer), *worked_out))
        rows = [[float(hit[k]) for hit in hits] for k in range(len(NAMES))]
        made = scores(rows, [self.pairs[i].recipient.id for i in places])
        return {"n": len(places), **dict(zip(NAMES, made, strict=True))}


@dataclass(frozen=True)
class Drops:
    """What is lost when the donor's vectors are replaced: wins of the target, and the recipient's own right answer.

    The recipients are right before anything is changed, so the second is 1 less how often they still are.
    """

    pairs: Sequence[Pair]
    with_donor: Sequence[str | None]
    without: Sequence[str | None]
    kind: str

    def __call__(self, places: Sequence[int]) -> dict[str, Any]:
        """The row of some of the pairs."""
        wins, accuracy = [], []
        for i in places:
            p, target = self.pairs[i], self.pairs[i].target(self.kind)
            wins.append(float(self.with_donor[i] == target) - float(self.without[i] == target))
            accuracy.append(float(self.without[i] != p.recipient.answer))
        made = scores([wins, accuracy], [self.pairs[i].recipient.id for i in places])
        return {"n": len(places), **dict(zip(("wins", "accuracy"), made, strict=True))}


def table_of(pairs: Sequence[Pair], row: Callable[[Sequence[int]], dict[str, Any]]) -> dict[str, Any]:
    """Rows by number of digits and column, by column, and overall; ``row`` gets the places of its pairs.

    What concerns the final carry stands apart: it has two values, and one guess is right too often.
    """
    digits = [len(Columns.of(p.recipient).a) for p in pairs]
    whole = [i for i, p in enumerate(pairs) if p.apart is None]
    found: dict[str, Any] = {}
    for d in sorted(set(digits)):
        of = {k: [i for i in whole if (digits[i], pairs[i].column) == (d, k)] for k in range(d)}
        apart = {name: [i for i, p in enumerate(pairs) if p.apart == name and digits[i] == d] for name in APART}
        found[f"digits={d}"] = {
            **{str(k): row(mine) for k, mine in of.items() if mine},
            **{name: row(mine) for name, mine in apart.items() if mine},
            "overall": row([i for i in whole if digits[i] == d]),
        }
    return {**found, "overall": row(whole)}


def column_report(
    solver: Solver,
    problems: Sequence[Problem],
    encoded: Sequence[Encoded] | None = None,
    *,
    seed: int = 0,
    most: int = 300,
    most_minimal: int = 150,
    most_other: int = 100,
    blocks: Sequence[int] | None = None,
    encoder: Encoder | None = None,
) -> dict[str, Any]:
    """The whole battery on sums: exchanges of each kind, both sorts of donors, and the necessity of what is exchanged.

    ``most`` and ``most_minimal`` are pairs for each number of digits, column and sort of donors, ``most_other`` those of them for
    residuals and corruptions; ``blocks`` are those after which the residual is exchanged (default: all). Problems the model gets
    wrong are left out, and so are pairs whose donor it gets wrong.
    ValueError where a problem is no sum of two equally long numbers.
    """
    code = encoder or (lambda some: encode(some, solver.backbone.tokenizer))
    ids = list(encoded) if encoded is not None else code(problems)
    blocks = range(1, solver.reasoner.model.config.num_hidden_layers + 1) if blocks is None else blocks
    clean = write_all(solver, problems, ids)
    right = [p for p, is_right in zip(problems, clean.correct, strict=True) if is_right]
    by_digits: dict[int, list[Problem]] = {}
    for p in right:
        by_digits.setdefault(len(Columns.of(p).a), []).append(p)
    groups = [by_digits[d] for d in sorted(by_digits)]
    known = {p.id: e for p, e in zip(problems, ids, strict=True)}
    feeds = solver.reasoner.loop.feeds == "thoughts"
    kinds = [Condition(kind) for kind in ("cache", "step", "thought") if feeds or kind != "thought"]
    few = [Condition("residual", block) for block in blocks] if feeds else []
    few += [Condition(c.kind, None, source) for c in kinds for source in ("noise", "other_slot")]
    drawn = {
        "independent": [p for group in groups for p in independent_pairs(group, most, seed)],
        "minimal": [p for group in groups for p in minimal_pairs(group, most_minimal, seed)],
    }
    limit = max(map(len, clean.ids), default=1) + 4
    report: dict[str, Any] = {"problems": len(problems), "right": len(right), "chance": CHANCE, "excluded": {}}
    for name, wanted in drawn.items():
        donors = [p.donor for p in wanted if p.donor.id not in known]
        known |= dict(zip([d.id for d in donors], code(donors), strict=True))
        fit = [p for p in wanted if slots_of_step(solver, known[p.recipient.id], p.column, solver.num_slots)]
        items = [(known[p.recipient.id], known[p.donor.id], p.column) for p in fit]
        conditions = [*kinds, *few] if name == "independent" else kinds
        made = exchange_all(solver, items, kinds, seed=seed, most_tokens=limit)
        answers = {condition: list(given) for condition, given in made.answers.items()}
        if name == "independent":
            some = first_of_each(fit, most_other)
            more = exchange_all(solver, [items[i] for i in some], few, seed=seed, most_tokens=limit).answers
            for condition, given in more.items():
                answers[condition] = [SKIPPED] * len(fit)
                for i, answer in zip(some, given, strict=True):
                    answers[condition][i] = answer
        kept = [i for i, p in enumerate(fit) if made.donors[i] == p.donor.answer]
        report["excluded"][name] = {"no_slot": len(wanted) - len(fit), "donor_wrong": len(fit) - len(kept)}
        report |= tables([fit[i] for i in kept], {c: [given[i] for i in kept] for c, given in answers.items()}, conditions)
    return report | {"summary": summary(report, [c.name for c in kinds])}


SKIPPED = "(not asked)"
"""Stands for the answer of a pair that a condition was not tried on."""


def first_of_each(pairs: Sequence[Pair], most: int) -> list[int]:
    """Places of the first ``most`` pairs of each number of digits, column and sort of donors."""
    counts: Counter[tuple[int, int, str]] = Counter()
    found = []
    for i, p in enumerate(pairs):
        key = (len(Columns.of(p.recipient).a), p.column, p.donors)
        counts[key] += 1
        if counts[key] <= most:
            found.append(i)
    return found


def tables(
    pairs: Sequence[Pair], answers: dict[str, list[str | None]], conditions: Sequence[Condition]
) -> dict[str, dict[str, Any]]:
    """For each sort of donors and each condition its table; the losses by corruption as ``necessity``."""
    found: dict[str, dict[str, Any]] = {}
    for sort in ("independent", "same_carry", "flipped_carry"):
        mine = [i for i, p in enumerate(pairs) if p.donors == sort or (sort == "independent" and p.donors in APART)]
        for condition in conditions if mine else ():
            kind = condition.kind
            some = [i for i in mine if answers[condition.name][i] is not SKIPPED and pairs[i].is_telling(kind)]
            told = [pairs[i] for i in some]
            given, base = ([answers[name][i] for i in some] for name in (condition.name, Condition(kind, condition.block).name))
            if condition.source == "donor":
                found.setdefault(sort, {})[condition.name] = table_of(told, Rows(told, given, kind))
            else:
                at = found.setdefault("necessity", {}).setdefault(kind, {})
                at[condition.source] = table_of(told, Drops(told, base, given, kind))
    return found


def summary(report: dict[str, Any], kinds: Sequence[str]) -> dict[str, Any]:
    """For each kind with independent donors: the overall row, and the columns (by digits) where it does worst.

    ``least_target`` and ``most_donor`` are the extremes over numbers of digits and columns, the final carry aside; ``drop`` is
    the smaller of the two corruptions' overall losses of wins.
    """
    found: dict[str, Any] = {}
    for kind in kinds:
        table = report.get("independent", {}).get(kind)
        if table is None:
            continue
        rows = {
            f"{digits}/{column}": row
            for digits, part in table.items()
            if digits.startswith("digits=")
            for column, row in part.items()
            if column.isdecimal()
        }
        if not rows:
            continue
        least, most = min(rows, key=lambda k: rows[k]["target"]["value"]), max(rows, key=lambda k: rows[k]["donor"]["value"])
        corrupted = report.get("necessity", {}).get(kind, {})
        found[kind] = {
            "target": table["overall"]["target"],
            "donor": table["overall"]["donor"],
            "keep": table["overall"]["keep"],
            "least_target": {"at": least, **rows[least]["target"]},
            "most_donor": {"at": most, **rows[most]["donor"]},
            "drop": min((part["overall"]["wins"] for part in corrupted.values()), key=lambda drop: drop["value"], default=None),
        }
    return found
