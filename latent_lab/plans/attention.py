"""How much written text attends to planning tokens: over all layers and heads, beside what the text around them gets.

One head of one example can show anything. Here every planning token has two partners, the text as many places before it as its
block is long, and as many after it: the mean of the two is what a token there gets for its nearness.

Shape suffixes: B batch, H heads, Q columns that attend, T columns.
"""

from collections.abc import Sequence as Seq
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latent_lab.batching import Batch, collate
from latent_lab.grading.evaluate import Solver, evenly
from latent_lab.segments import added
from latent_lab.sequences import Encoded, Role


@dataclass(frozen=True)
class Masses:
    """Attention of all text tokens that come after a planning token and its partners, summed over them; a row a problem."""

    plan: np.ndarray
    """``[problems, layers, heads]``: on planning tokens."""
    matched: np.ndarray
    """The same: on their partners, the mean of both."""
    num_queries: np.ndarray
    """``[problems]``: such text tokens."""


@dataclass(frozen=True)
class Pairs:
    """Who attends to what in a batch."""

    before_BT: Tensor
    """The partner before each planning token; 0 where there is none."""
    after_BT: Tensor
    counts_BQT: Tensor
    """True where a text token comes after a planning token and both its partners."""


def pairs(roles_BT: Tensor, real_BT: Tensor) -> Pairs:
    """Partners of planning tokens, by the roles of tokens ``[B, T]``."""
    is_plan_BT = (roles_BT == Role.PLAN) & real_BT.bool()
    before_BT, after_BT = torch.zeros_like(roles_BT), torch.zeros_like(roles_BT)
    has_both_BT = torch.zeros_like(is_plan_BT)
    for row, marks in enumerate(is_plan_BT.tolist()):
        end = int(real_BT[row].sum())
        first = 0
        while first < end:
            size = 0
            while first + size < end and marks[first + size]:
                size += 1
            for at in range(first, first + size):
                is_text = at - size >= 0 and at + size < end and not marks[at - size] and not marks[at + size]
                if is_text:
                    before_BT[row, at], after_BT[row, at], has_both_BT[row, at] = at - size, at + size, True
            first += size or 1
    is_text_BT = ((roles_BT == Role.STEP) | (roles_BT == Role.ANSWER)) & real_BT.bool()
    columns = torch.arange(roles_BT.shape[1], device=roles_BT.device)
    counts_BQT = is_text_BT[:, :, None] & has_both_BT[:, None] & (columns[:, None] > after_BT[:, None])
    return Pairs(before_BT, after_BT, counts_BQT)


@torch.no_grad()
def masses(solver: Solver, encoded: Seq[Encoded]) -> Masses:
    """Of every problem whose gold sequence the model has positions for."""
    model = solver.reasoner.model
    laid = [solver.layout.sequence(p, solver.backbone.tokens, solver.stage) for p in encoded]
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    given = model.config._attn_implementation
    model.set_attn_implementation("eager")  # the only one that tells
    try:
        for part in evenly([s for s in laid if len(s.ids) <= solver.room], solver.batch_size):
            batch = collate(part, solver.backbone.pad, with_roles=True).to(solver.reasoner.device)
            found.append(masses_of(solver, batch))
    finally:
        model.set_attn_implementation(given)
    plan, matched, num_queries = (np.concatenate(each) for each in zip(*found, strict=True))
    return Masses(plan, matched, num_queries)


def masses_of(solver: Solver, batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The three of :class:`Masses` for one batch."""
    assert batch.roles is not None
    mask, segments, body = batch.attention_mask, solver.reasoner.loop.segments, solver.reasoner.model.base_model
    if segments:
        dtype = solver.reasoner.model.get_input_embeddings().weight.dtype
        mask = added(segments, batch.input_ids, mask, mask.shape[1], dtype)
    given = pairs(batch.roles, batch.attention_mask)
    plan, matched = [], []
    for weights_BHQT in body(input_ids=batch.input_ids, attention_mask=mask, output_attentions=True, use_cache=False).attentions:
        counts = given.counts_BQT[:, None]
        plan.append((weights_BHQT.float() * counts).sum((2, 3)))
        sides = [
            (weights_BHQT.float().gather(3, at[:, None, None].expand_as(weights_BHQT)) * counts).sum((2, 3))
            for at in (given.before_BT, given.after_BT)
        ]
        matched.append(sum(sides) / 2)
    num_queries = given.counts_BQT.any(2).sum(1)
    return torch.stack(plan, 1).cpu().numpy(), torch.stack(matched, 1).cpu().numpy(), num_queries.cpu().numpy()
