"""Batches: which problems go together, and how sequences become tensors."""

import random
from collections.abc import Sequence as Seq
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from latent_lab.sequences import IGNORE, Sequence

POOL = 64
"""Batches' worth of shuffled problems sorted by shape together: wide enough for little padding, narrow enough to stay random."""


@dataclass(slots=True)
class Batch:
    """Laid-out problems as tensors; every row is padded on the right."""

    ids: list[str]
    """Problem ids, one a row."""
    input_ids: Tensor
    """``[batch, tokens]``."""
    attention_mask: Tensor
    """``[batch, tokens]``, 0 at padding."""
    labels: Tensor
    """``[batch, tokens]``, unshifted, -100 where nothing is to be predicted."""
    slot_rows: Tensor
    """``[supervised slots]``: row of each slot that has a text of its own."""
    slot_columns: Tensor
    """``[supervised slots]``: its number among the row's slots."""
    slot_targets: Tensor
    """``[supervised slots, longest text]``: the token ids of that text, -100 after its end."""
    is_closed: Tensor | None = None
    """``[batch]``: rows in which what follows the slots may see them only; None where no row is so."""
    position_ids: Tensor | None = None
    """``[batch, tokens]``: place of each token; None where all rows are counted from 0 without a gap."""
    anchors: Tensor | None = None
    """``[batch]``: column of the token before the answer proper; None where no method asks for it."""
    roles: Tensor | None = None
    """``[batch, tokens]``: what each token is for (:class:`latent_lab.sequences.Role`); None where nobody asks."""
    teacher: "Batch | None" = None
    """The same problems with their chains written out, to be learned from."""

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device."""
        moved: dict[str, Any] = {
            field.name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for field in fields(self)
            if (value := getattr(self, field.name)) is not None and field.name != "teacher"
        }
        return Batch(**moved, teacher=self.teacher.to(device) if self.teacher else None)

    @property
    def num_positions(self) -> int:
        """Positions up to the last token's."""
        return self.input_ids.shape[1] if self.position_ids is None else int(self.position_ids.max()) + 1

    @property
    def num_labels(self) -> int:
        """Labelled tokens."""
        return int((self.labels != IGNORE).sum())

    @property
    def num_slot_labels(self) -> int:
        """Tokens of the slots' texts."""
        return int((self.slot_targets != IGNORE).sum())


def collate(sequences: Seq[Sequence], pad: int, *, with_anchors: bool = False, with_roles: bool = False) -> Batch:
    """Pad sequences to one width."""
    width = max(len(s.ids) for s in sequences)
    slots = [(row, column, text) for row, s in enumerate(sequences) for column, text in enumerate(s.slot_texts) if text]
    longest = max((len(text) for *_, text in slots), default=0)
    return Batch(
        ids=[s.problem.id for s in sequences],
        input_ids=torch.tensor([[*s.ids, *[pad] * (width - len(s.ids))] for s in sequences]),
        attention_mask=torch.tensor([[1] * len(s.ids) + [0] * (width - len(s.ids)) for s in sequences]),
        labels=torch.tensor([[*s.labels, *[IGNORE] * (width - len(s.ids))] for s in sequences]),
        slot_rows=torch.tensor([row for row, _, _ in slots], dtype=torch.long),
        slot_columns=torch.tensor([column for _, column, _ in slots], dtype=torch.long),
        slot_targets=torch.tensor([[*t, *[IGNORE] * (longest - len(t))] for *_, t in slots], dtype=torch.long).view(
            len(slots), longest
        ),
        is_closed=torch.tensor([s.is_closed for s in sequences]) if any(s.is_closed for s in sequences) else None,
        position_ids=torch.tensor([[*s.positions, *[0] * (width - len(s.ids))] for s in sequences])
        if any(s.gap for s in sequences)
        else None,
        anchors=torch.tensor([s.anchor for s in sequences]) if with_anchors else None,
        roles=torch.tensor([[*s.roles, *[0] * (width - len(s.ids))] for s in sequences]) if with_roles else None,
    )


def bucketed(shapes: Seq[tuple[int, ...]], batch_size: int, seed: str) -> list[list[int]]:
    """Cut ``range(len(shapes))`` into batches of problems of like shape, in an order that depends on ``seed`` alone.

    All indices are shuffled, pools of ``POOL`` batches are sorted by shape and cut, and the batches are shuffled again. Every
    index occurs exactly once; only the last batch of the last pool may be smaller.
    """
    rng = random.Random(seed)
    order = list(range(len(shapes)))
    rng.shuffle(order)
    batches: list[list[int]] = []
    for start in range(0, len(order), POOL * batch_size):
        pool = sorted(order[start : start + POOL * batch_size], key=shapes.__getitem__)
        batches += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
    rng.shuffle(batches)
    return batches
