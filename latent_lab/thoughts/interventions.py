"""Does a thought matter, and does what it holds? Whole thoughts removed, replaced, exchanged and edited while the model thinks.

Necessity (what is lost without a thought) and specificity (what is lost with another problem's, or with the mean of those that
agree in one field) are different questions, and both are asked (reading_thoughts 4.8 to 4.10, 4.12, 4.13). An edited thought is
fed in, and the thoughts after it are thought anew. Every row stands beside the same problems' clean accuracy.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from random import Random
from typing import Any

import torch
from torch import Tensor

from latent_lab.grading.evaluate import Solver
from latent_lab.problems import Problem
from latent_lab.problems.arithmetic import sum_asked
from latent_lab.sequences import Encoded
from latent_lab.thoughts.bench import Bench, EditsOf, bench
from latent_lab.thoughts.editing import Written, noise_like
from latent_lab.thoughts.erasure import leace
from latent_lab.thoughts.grammar import Grammar
from latent_lab.thoughts.pairs import Columns
from latent_lab.thoughts.store import ThoughtStore

SMALLEST_GROUP = 20
"""A mean stands for a value of a field if so many training problems have it."""
TOGETHER = {"result": ("write", "carry_out"), "operands": ("a", "b", "carry_in")}
"""Fields that are also taken together: where the mean over equal results serves as well as over equal operands, the result is
held."""
MORE_THOUGHTS = 2
"""The sweep goes on so many thoughts past the number trained."""


def intervention_report(
    solver: Solver,
    problems: Sequence[Problem],
    encoded: Sequence[Encoded],
    train: ThoughtStore,
    grammar: Grammar,
    *,
    seed: int = 0,
    most: int = 200,
    orders: int = 10,
    blocks: Sequence[int] | None = None,
) -> dict[str, Any]:
    """The whole-thought battery on the first ``most`` problems; means, covariances and subspaces are those of ``train``.

    ``orders`` permutations of the slots are tried (all, if there are no more); ``blocks`` are those after which residuals are
    exchanged (default: all). Pause tokens feed nothing in: what would change a fed vector is left out.
    """
    pairs = [(p, e) for p, e in zip(problems, encoded, strict=True) if solver.fits(e)][:most]
    at = bench(solver, [p for p, _ in pairs], [e for _, e in pairs])
    blocks = list(range(1, solver.reasoner.model.config.num_hidden_layers + 1)) if blocks is None else list(blocks)
    report: dict[str, Any] = {"n": len(pairs), "slots": at.slots, "clean": at.row(at.clean)["accuracy"], "feeds": at.feeds}
    swept = {count: at.with_slots(count) for count in range(solver.num_slots + MORE_THOUGHTS + 1)}
    report["sweep"] = {str(count): at.row(made) for count, made in swept.items()}
    report["early_exit"] = early_exit(at, [swept[count] for count in range(solver.num_slots + 1)])
    if not at.slots:
        return report
    report["tracing"] = tracing(at, blocks, seed)
    if not at.feeds:
        return report | {"thoughts": {"remove": {"all": report["sweep"]["0"]}}}
    means = TrainMeans(solver, train, grammar)
    report["thoughts"] = whole_thoughts(at, train, seed) | {"remove": removed(at) | {"all": report["sweep"]["0"]}}
    report["permute"] = permuted(at, orders, seed)
    report["groups"] = groups(at, means, seed)
    report["subspace"] = subspaces(at, means, seed)
    report["steer"] = steered(at, means, seed)
    return report


def early_exit(at: Bench, by_count: Sequence[Written]) -> dict[str, Any]:
    """After how many thoughts the answer, if it must be given then, is the final one: the first time, and from when on.

    ``first`` and ``stable`` count the problems by that number; their ``mean`` is over problems.
    """
    final = by_count[-1].answers
    first, stable = [], []
    for i, answer in enumerate(final):
        same = [made.answers[i] == answer for made in by_count]
        first.append(same.index(True))
        stable.append(len(same) - next((k for k, is_same in enumerate(reversed(same)) if not is_same), len(same)))

    def counted(found: Sequence[int]) -> dict[str, Any]:
        return {
            "mean": sum(found) / max(len(found), 1),
            "counts": {str(count): found.count(count) for count in range(len(by_count))},
        }

    return {"n": len(final), "first": counted(first), "stable": counted(stable)}


def tracing(at: Bench, blocks: Sequence[int], seed: int) -> dict[str, Any]:
    """The same random other problem's keys and values, thought, or residual after a block, slot by slot and in all slots.

    ``donor`` is how often the answer becomes the donor's.
    """
    donors = at.donors([str(sum_asked(p.question).get("digits", "")) for p in at.problems], seed)
    kinds: list[tuple[str, str, int | None]] = [("cache", "cache", None), ("step", "step", None)]
    if at.feeds:
        kinds += [("thought", "thought", None), *((f"residual_{block}", "residual", block) for block in blocks)]
    found: dict[str, Any] = {}
    for name, kind, block in kinds:
        found[name] = {}
        for where, slots in each(at.slots):
            made = at.run(at.transplanted(donors, kind, slots, block))
            given = [at.clean.answers[i] for i in donors.tolist()]
            is_donor = [mine is not None and mine == other for mine, other in zip(made.answers, given, strict=True)]
            found[name][where] = at.row(made, donor=is_donor)
    return found


def each(count: int) -> list[tuple[str, list[int]]]:
    """Every slot by itself, and all of them."""
    return [*((str(slot), [slot]) for slot in range(count)), ("all", list(range(count)))]


def whole_thoughts(at: Bench, train: ThoughtStore, seed: int) -> dict[str, Any]:
    """Each thought, and all, replaced: by nothing the problem's own, and by other problems' thoughts."""
    real = at.thoughts()
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(real.shape, generator=generator)
    start = at.solver.reasoner.model.get_input_embeddings()(
        torch.tensor(at.solver.backbone.tokens.start, device=at.solver.reasoner.device)
    )
    by_length = [str(len(p.answer)) for p in at.problems]
    given = {
        "zero": torch.zeros_like(real),
        "mean": means_of(train, at.slots).expand_as(real),
        "cov_noise": covariance_matched(train, real.shape, generator),
        "filler": start.detach().float().cpu().expand_as(real),
        "transplant": real[at.donors([""] * len(real), seed)],
        "transplant_same_length": real[at.donors(by_length, seed + 1)],
    }

    def noise(rows: slice, slot: int, thoughts: Tensor) -> Tensor:
        scale = thoughts.norm(dim=-1, keepdim=True) / drawn[rows, slot].norm(dim=-1, keepdim=True).to(thoughts)
        return drawn[rows, slot].to(thoughts) * scale

    found: dict[str, Any] = {name: {} for name in (*given, "noise")}
    for where, slots in each(at.slots):
        for name, vectors in given.items():
            found[name][where] = at.row(at.run(at.replaced(vectors, slots)))
        found["noise"][where] = at.row(at.run(at.changed(noise, slots)))
    return found


def slots_of(train: ThoughtStore) -> list[Tensor]:
    """For each slot ``[problems that have it, width]``: its training thoughts."""
    thoughts = train.layer(0)
    return [thoughts[train.num_slots > slot, slot] for slot in range(thoughts.shape[1])]


def means_of(train: ThoughtStore, slots: int) -> Tensor:
    """``[slots, width]``: each slot's mean thought over training problems; zero for a slot that none has."""
    found = [held.mean(0) if len(held) else held.new_zeros(held.shape[1]) for held in slots_of(train)]
    found += [torch.zeros_like(found[0])] * (slots - len(found))
    return torch.stack(found[:slots])


def covariance_matched(train: ThoughtStore, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """``[problems, slots, width]``: Gaussian vectors with each slot's training mean and covariance."""
    made = torch.zeros(shape)
    for slot, held in enumerate(slots_of(train)[: shape[1]]):
        held = held[:4096]
        if len(held) < 2:
            continue
        mean = held.mean(0)
        weights = torch.randn(shape[0], len(held), generator=generator)
        made[:, slot] = mean + weights @ (held - mean) / (len(held) - 1) ** 0.5  # of such a sum, the covariance is the sample's
    return made


def removed(at: Bench) -> dict[str, Any]:
    """One thought taken out: one slot less, into which the clean run's other thoughts are fed in their order."""
    real, found = at.thoughts(), {}
    if at.slots < 2 or at.solver.thoughts_by != "fixed":
        return {}
    shorter = bench(replace(at.solver, num_slots=at.slots - 1), at.problems, at.encoded, at.clean)
    for slot in range(at.slots):
        rest = torch.cat([real[:, :slot], real[:, slot + 1 :]], dim=1)
        found[str(slot)] = at.row(shorter.run(shorter.replaced(rest, range(at.slots - 1))))
    return found


def permuted(at: Bench, orders: int, seed: int) -> dict[str, Any]:
    """The clean run's thoughts fed in in another order: all problems in the same."""
    real = at.thoughts()
    rng = Random(seed)
    own = tuple(range(at.slots))
    if at.slots <= 4:
        tried = [order for order in permutations(own) if order != own]
        tried = rng.sample(tried, min(orders, len(tried)))
    else:
        tried = []
        while len(tried) < orders:
            order = tuple(rng.sample(own, at.slots))
            if order != own and order not in tried:
                tried.append(order)
    rows = [{"order": list(order), **at.row(at.run(at.replaced(real[:, list(order)], own)))} for order in tried]
    mean = {name: sum(row[name]["value"] for row in rows) / len(rows) for name in ("accuracy", "flips", "kl")} if rows else None
    return {"mean": mean, "orders": rows}


Group = tuple[str, tuple[str, ...]]
"""A stratum, and what a step says there."""


class TrainMeans:
    """Mean training thoughts by what a slot's step says, among problems of one stratum (as many digits)."""

    def __init__(self, solver: Solver, train: ThoughtStore, grammar: Grammar) -> None:
        self.solver, self.grammar = solver, grammar
        self.thoughts, self.num_slots = train.layer(0), train.num_slots
        self.problems = train.problems
        known = {field for p in self.problems[:50] for said in grammar.labels(p.steps) for field in said}
        together = {name: fields for name, fields in TOGETHER.items() if set(fields) <= known}
        self.keys = {field: (field,) for field in grammar.values if field in known} | together
        self.labels = [grammar.labels(p.steps) for p in self.problems]
        self.strata = [self.stratum(p) for p in self.problems]

    @staticmethod
    def stratum(problem: Problem) -> str:
        """What is kept equal beside a field: the number of digits of a sum."""
        return str(sum_asked(problem.question).get("digits", ""))

    def steps_of_slots(self, encoded: Sequence[Encoded], slots: int) -> list[list[int | None]]:
        """For each problem the step that each slot stands for."""
        found = []
        for e in encoded:
            steps = self.solver.layout.sequence(e, self.solver.backbone.tokens, self.solver.stage).step_of_slot[:slots]
            found.append([*steps, *[None] * (slots - len(steps))])
        return found

    def said(self, labels: Sequence[dict[str, str]], step: int | None, key: str) -> tuple[str, ...] | None:
        """What a step says in the fields of a key; None where it does not say all."""
        if step is None or step >= len(labels) or any(field not in labels[step] for field in self.keys[key]):
            return None
        return tuple(labels[step][field] for field in self.keys[key])

    def places(self, step: int, slot: int, key: str) -> dict[Group, list[int]]:
        """By stratum and value the training problems with this slot whose step says so."""
        found: dict[Group, list[int]] = {}
        for i, labels in enumerate(self.labels):
            value = self.said(labels, step, key) if int(self.num_slots[i]) > slot else None
            if value is not None:
                found.setdefault((self.strata[i], value), []).append(i)
        return found

    def labelled(self, step: int, slot: int, key: str) -> tuple[Tensor, Tensor]:
        """``[n, width]`` and ``[n]``: a slot's training thoughts whose step says something, and the number of what it says."""
        places = self.places(step, slot, key)
        values = sorted({value for _, value in places})
        pairs = [(i, values.index(value)) for (_, value), rows in places.items() for i in rows]
        return self.thoughts[[i for i, _ in pairs], slot], torch.tensor([label for _, label in pairs])

    def means(self, step: int, slot: int, key: str) -> dict[Group, Tensor]:
        """By stratum and value the mean thought of a slot over problems whose step says so; groups of ``SMALLEST_GROUP``."""
        places = self.places(step, slot, key)
        return {group: self.thoughts[where, slot].mean(0) for group, where in places.items() if len(where) >= SMALLEST_GROUP}


@torch.no_grad()
def per_slot(at: Bench, means: TrainMeans, key: str) -> list[tuple[int, int, list[Group | None], dict[Group, Tensor]]]:
    """For each slot that always stands for one step: slot, step, each problem's group (None without), and the groups' means."""
    labels = [means.grammar.labels(p.steps) for p in at.problems]
    steps = means.steps_of_slots(at.encoded, at.slots)
    found = []
    for slot in range(at.slots):
        those = {row[slot] for row in steps if row[slot] is not None}
        if len(those) != 1:
            continue
        (step,) = those
        assert step is not None
        by_group = means.means(step, slot, key)
        mine: list[Group | None] = []
        for p, own, row in zip(at.problems, labels, steps, strict=True):
            value = means.said(own, row[slot], key)
            group = None if value is None else (means.stratum(p), value)
            mine.append(group if group in by_group else None)
        found.append((slot, step, mine, by_group))
    return found


def others(group: Group, by_group: dict[Group, Tensor]) -> list[Group]:
    """The groups of the same stratum with another value."""
    return sorted(other for other in by_group if other[0] == group[0] and other != group)


def groups(at: Bench, means: TrainMeans, seed: int) -> dict[str, Any]:
    """A thought replaced by the mean of training problems whose step says the same in a field, or something else.

    A thought holds the field, and nothing else that counts, where the same keeps the answer and a different one moves it. The
    problems themselves are not among those averaged.
    """
    found: dict[str, Any] = {}
    for key in means.keys:
        for slot, _, mine, by_group in per_slot(at, means, key):
            rng = Random(f"{seed}/{key}/{slot}")
            chosen = [i for i, group in enumerate(mine) if group is not None and others(group, by_group)]
            if len(chosen) < SMALLEST_GROUP:
                continue
            vectors = {
                name: torch.zeros(len(mine), at.slots, next(iter(by_group.values())).shape[0]) for name in ("same", "different")
            }
            for i in chosen:
                group = mine[i]
                assert group is not None
                vectors["same"][i, slot] = by_group[group]
                vectors["different"][i, slot] = by_group[rng.choice(others(group, by_group))]
            mask = mask_of(chosen, len(mine))
            made = {name: at.row(at.run(at.replaced(given, [slot], mask)), chosen) for name, given in vectors.items()}
            found.setdefault(key, {})[str(slot)] = {"n": len(chosen), **made}
    return found


def mask_of(chosen: Sequence[int], count: int) -> Tensor:
    """``[count]``: True at the places chosen."""
    mask = torch.zeros(count, dtype=torch.bool)
    mask[list(chosen)] = True
    return mask


def subspaces(at: Bench, means: TrainMeans, seed: int) -> dict[str, Any]:
    """The subspace in which a field's class means differ, taken out of a thought; beside it as many random directions.

    ``leace`` takes out all that tells the field linearly, and moves thoughts least of all that do (:mod:`.erasure`);
    ``leace_random`` as many random directions of the same whitened space. Fitted on training thoughts.
    """
    found: dict[str, Any] = {}
    generator, drawn = (torch.Generator().manual_seed(seed) for _ in range(2))
    for key in [key for key in means.keys if key not in TOGETHER]:
        for slot, step, mine, by_group in per_slot(at, means, key):
            chosen = [i for i, group in enumerate(mine) if group is not None]
            basis, centre = class_means(by_group)
            if len(chosen) < SMALLEST_GROUP or not basis.shape[1]:
                continue
            random = torch.linalg.qr(torch.randn(basis.shape, generator=generator)).Q
            told = means.labelled(step, slot, key)
            erasers = {"leace": leace(*told), "leace_random": leace(*told, drawn)}
            changes = {"removed": without(basis, centre), "random": without(random, centre)}
            changes |= {name: each.change for name, each in erasers.items()}
            mask = mask_of(chosen, len(mine))
            made = {name: at.row(at.run(at.changed(change, [slot], mask)), chosen) for name, change in changes.items()}
            ranks = {"rank": basis.shape[1], "leace_rank": erasers["leace"].rank}
            found.setdefault(key, {})[str(slot)] = {"n": len(chosen), **ranks, **made}
    return found


def class_means(by_group: dict[Group, Tensor]) -> tuple[Tensor, Tensor]:
    """An orthonormal basis ``[width, rank]`` of where the means of a stratum's groups differ, and their centre ``[width]``."""
    strata = sorted({stratum for stratum, _ in by_group})
    stacked = [torch.stack([mean for (s, _), mean in by_group.items() if s == stratum]) for stratum in strata]
    if not stacked:
        return torch.zeros(0, 0), torch.zeros(0)
    values = {value for _, value in by_group}
    differences = torch.cat([part - part.mean(0) for part in stacked])
    left, sizes, _ = torch.linalg.svd(differences.T, full_matrices=False)
    rank = min(len(values) - 1, int((sizes > 1e-5 * sizes.max().clamp(min=1e-12)).sum()))
    return left[:, :rank], torch.cat(stacked).mean(0)


def without(space: Tensor, centre: Tensor) -> Any:
    """The change that leaves a vector at the centre in a subspace: what it says there is gone."""

    def change(rows: slice, slot: int, thoughts: Tensor) -> Tensor:
        basis = space.to(thoughts)
        return thoughts - (thoughts - centre.to(thoughts)) @ basis @ basis.T

    return change


def steered(at: Bench, means: TrainMeans, seed: int) -> dict[str, Any]:
    """``mean(value = b) - mean(value = a)`` added to the thoughts of problems that say a; beside it a random vector as long.

    For sums and the digit written, ``target`` is how often the answer becomes what it should with digit b and the own carry.
    """
    found: dict[str, Any] = {}
    for key in [key for key in means.keys if key not in TOGETHER]:
        for slot, step, mine, by_group in per_slot(at, means, key):
            rng = Random(f"{seed}/{key}/{slot}")
            chosen = [i for i, group in enumerate(mine) if group is not None and others(group, by_group)]
            if len(chosen) < SMALLEST_GROUP:
                continue
            added = torch.zeros(len(mine), at.slots, next(iter(by_group.values())).shape[0])
            targets: list[str | None] = [None] * len(mine)
            for i in chosen:
                group = mine[i]
                assert group is not None
                aim = rng.choice(others(group, by_group))
                added[i, slot] = by_group[aim] - by_group[group]
                if means.grammar.name == "addition" and key == "write":
                    own = Columns.of(at.problems[i])
                    if step < len(own.a):
                        targets[i] = own.answer({step: (int(aim[1][0]), own.added()[step][1])})
            random = noise_like(added, torch.Generator().manual_seed(seed))
            made = {}
            for name, vectors in (("steered", added), ("random", random)):
                written = at.run(plus(at, vectors, slot))
                hit = [answer is not None and answer == target for answer, target in zip(written.answers, targets, strict=True)]
                made[name] = at.row(written, chosen, **({"target": hit} if any(targets) else {}))
            found.setdefault(key, {})[str(slot)] = {"n": len(chosen), **made}
    return found


def plus(at: Bench, vectors: Tensor, slot: int) -> EditsOf:
    """Add ``vectors [problems, slots, width]`` to the thoughts of one slot."""
    return at.changed(lambda rows, here, thoughts: thoughts + vectors[rows, here].to(thoughts), [slot])
