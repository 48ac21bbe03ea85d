"""What tokens cost, given the gold tokens before them: by their role, and by the kind that announces their step."""

from collections import defaultdict
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from statistics import fmean

import torch
from torch import nn

from latent_lab.batching import collate
from latent_lab.grading.evaluate import Solver, evenly
from latent_lab.plans.base import Label
from latent_lab.sequences import IGNORE, Encoded, Role, Sequence

ROLES = (Role.PLAN, Role.STEP, Role.ANSWER)


def losses(solver: Solver, encoded: Seq[Encoded]) -> dict[str, float]:
    """Mean loss of a token by its role."""
    found: dict[Role, list[float]] = defaultdict(list)
    for sequence, costs in costed(solver, encoded):
        for role, cost in zip(sequence.roles, costs, strict=True):
            if cost is not None:
                found[role].append(cost)
    return {role.name.lower(): fmean(found[role]) for role in ROLES if found[role]}


def losses_by_kind(solver: Solver, encoded: Seq[Encoded], labels: Seq[Seq[Label]]) -> dict[str, dict[str, float]]:
    """For each kind (of several, all their names) its steps, and the mean loss of a token of its blocks and of its steps."""
    labels_of = {p.id: each for p, each in zip(encoded, labels, strict=True)}
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: {"plan": [], "step": []})
    counts: dict[str, int] = defaultdict(int)
    for sequence, costs in costed(solver, encoded):
        for number, places in enumerate(places_of_steps(sequence)):
            kind = " ".join(labels_of[sequence.problem.id][number])
            counts[kind] += 1
            for place in places:
                role, cost = sequence.roles[place], costs[place]
                if cost is not None and role in (Role.PLAN, Role.STEP):
                    found[kind][role.name.lower()].append(cost)
    return {
        kind: {"steps": counts[kind], **{name: fmean(costs) for name, costs in found[kind].items() if costs}}
        for kind in sorted(counts)
    }


@torch.no_grad()
def costed(solver: Solver, encoded: Seq[Encoded]) -> Iterator[tuple[Sequence, list[float | None]]]:
    """Each gold sequence that the model has positions for, with the loss of every token; None where nothing is predicted."""
    laid = [solver.layout.sequence(p, solver.backbone.tokens, solver.stage) for p in encoded]
    for part in evenly([s for s in laid if len(s.ids) <= solver.room], solver.batch_size):
        batch = collate(part, solver.backbone.pad).to(solver.reasoner.device)
        out = solver.reasoner(batch.input_ids, batch.attention_mask, batch.labels)
        each = iter(nn.functional.cross_entropy(out.logits, out.targets, reduction="none").tolist())
        for sequence in part:
            yield sequence, [None if label == IGNORE else next(each) for label in sequence.labels]


def places_of_steps(sequence: Sequence) -> Iterator[range]:
    """Where each step stands with the block before it, written or thought; nothing where steps are not written at all."""
    problem = sequence.problem
    at = len(problem.question) + len(problem.overview)
    for number, (block, step) in enumerate(zip(problem.plans, problem.steps, strict=False)):
        start, at = at, at + len(block)
        end = len(sequence.ids) if number in sequence.step_of_slot else at + len(step)
        while at < end and sequence.roles[at] in (Role.LATENT, Role.STEP):
            at += 1
        yield range(start, at)
