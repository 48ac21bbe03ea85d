"""How a padded batch is cut into the passes of the latent loop: integer work on token ids, no model in sight.

Shape suffixes: B batch, T input columns, W columns of one pass, C columns of all passes so far, K slots, N marked tokens.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from latent_lab.sequences import IGNORE, LatentTokens


@dataclass(frozen=True)
class PassShape:
    """How a batch is cut into passes."""

    middle: str
    """``slots``: a pass for each slot; ``block``: one for all of them; ``none``: slots are tokens like others."""
    has_tail: bool
    """Whether what follows the last slot has a pass of its own."""
    lead: int = 0
    """Columns that stand before everything in every row, for virtual tokens."""


@dataclass
class Passes:
    """A padded batch cut into the passes of the latent loop; every pass is packed to the right (padding on its left).

    With a pass for each slot: pass 0 holds what stands before each row's first slot, pass j (0 < j < K) slot j and what follows
    it, pass K the last slot of every row and the rest, where K is the largest number of slots in the batch. Rows without slots
    are split between the first and the last pass, so that they cost no extra columns. With a tail: slot K alone, then the rest.
    As a block: what stands before the first slot, everything from the first to the last slot, the rest.
    """

    ids: list[Tensor]
    """For each pass ``[B, W]``: token ids (0 at padding)."""
    masks: list[Tensor]
    """For each pass ``[B, W]``: True at real tokens."""
    positions: list[Tensor]
    """For each pass ``[B, W]``: position ids (0 at padding)."""
    is_slot: list[Tensor]
    """For each pass ``[B, W]``: True at slots."""
    num_slots: Tensor
    """``[B]``."""
    column: Tensor
    """``[B, T]``: the column each real input token has when all passes are laid side by side; -1 at padding."""
    slot: Tensor
    """``[B, T]``: True at slots."""
    tail: int | None
    """Number of the pass that holds only what follows the last slots; None if there is none."""
    lead: int = 0
    """The first columns of the first pass, which no input token has."""

    @classmethod
    def cut(
        cls,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        tokens: LatentTokens,
        position_ids: Tensor | None,
        shape: PassShape,
    ) -> "Passes":
        """Decide in which pass and column each token goes. All of it is integer work on ``[B, T]``."""
        real = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        slot = (input_ids == tokens.latent) & real
        if position_ids is None:
            position_ids = (real.cumsum(1) - 1).clamp(min=0)
        position_ids = position_ids + shape.lead
        if bool((slot & (real.cumsum(1) == 1)).any()):
            raise ValueError(
                "a row begins with <|latent|>: a thought is the state of the token before it, so give at least one token first"
            )
        is_tail = slot.flip(1).cumsum(1).flip(1) == 0  # no slot at or after this token
        is_tail &= slot.any(1, keepdim=True) | ((input_ids == tokens.end) & real).cumsum(1).bool()
        number = torch.where(real, pass_of(slot, real, is_tail, shape), -1)
        last = int(number.max())

        column = torch.full_like(input_ids, -1)
        has_tail = shape.has_tail and bool(((number == last) == (is_tail & real)).all())
        passes = cls([], [], [], [], slot.sum(1), column, slot, last if has_tail else None, shape.lead)
        before = 0
        for j in range(last + 1):
            member = number == j
            lead = 0 if j else shape.lead
            width = max(int(member.sum(1).max()), 1) + lead
            rows, cols = member.nonzero(as_tuple=True)
            at = width - member.flip(1).cumsum(1).flip(1)[rows, cols]
            column[rows, cols] = before + at
            before += width
            mask = input_ids.new_zeros(len(input_ids), width, dtype=torch.bool)
            mask[rows, at] = mask[:, :lead] = True
            passes.masks.append(mask)
            for source, target in ((input_ids, passes.ids), (position_ids, passes.positions), (slot, passes.is_slot)):
                packed = source.new_zeros(len(input_ids), width)
                packed[rows, at] = source[rows, cols]
                target.append(packed)
            passes.positions[-1][:, :lead] = torch.arange(lead, device=input_ids.device)
        return passes

    @property
    def widths(self) -> list[int]:
        """Columns of each pass."""
        return [ids.shape[1] for ids in self.ids]

    @cached_property
    def most_slots(self) -> int:
        """Slots of the row that has most."""
        return int(self.num_slots.max())

    @property
    def ends_in_slot(self) -> bool:
        """Whether some row's last token is a slot."""
        return bool(self.is_slot[-1][:, -1].any())

    def compact(self, pad: int) -> tuple[Tensor, Tensor]:
        """The batch as the cache sees it: ids and mask, ``[B, C]``, all passes side by side."""
        mask, ids = torch.cat(self.masks, dim=1), torch.cat(self.ids, dim=1)
        ids = ids.masked_fill(~mask, pad)
        ids[:, : self.lead] = pad
        return ids, mask.to(ids.dtype)

    def rows(self, index: Tensor) -> "Passes":
        """The same passes of the rows ``index`` alone, in that order; a row may occur more than once."""
        ids, masks, positions, is_slot = (
            [t[index] for t in part] for part in (self.ids, self.masks, self.positions, self.is_slot)
        )
        made = Passes(
            ids, masks, positions, is_slot, self.num_slots[index], self.column[index], self.slot[index], self.tail, self.lead
        )
        made.__dict__["most_slots"] = self.most_slots  # there are passes for so many
        return made

    def before(self, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For each real token marked in ``wanted [B, T]`` that has one before it in its row: three ``[N]``.

        Its row, the column (of all passes side by side) of the token before it, and its own input column.
        """
        order = torch.arange(wanted.shape[1], device=wanted.device).expand(wanted.shape)
        seen = torch.where(self.column >= 0, order, -1).cummax(1).values
        before = torch.cat([torch.full_like(seen[:, :1], -1), seen[:, :-1]], dim=1)
        rows, cols = (wanted & (self.column >= 0) & (before >= 0)).nonzero(as_tuple=True)
        return rows, self.column[rows, before[rows, cols]], cols

    def labelled(self, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows and columns (of all passes side by side) whose state predicts a labelled token, and those labels: three ``[N]``.

        A label is predicted from the real token before it in its row; labels at padding or at a row's first token do not count.
        """
        rows, columns, cols = self.before(labels != IGNORE)
        return rows, columns, labels[rows, cols]


def pass_of(slot: Tensor, real: Tensor, is_tail: Tensor, shape: PassShape) -> Tensor:
    """``[B, T]``: the pass each real token goes through."""
    if shape.middle == "none":
        return is_tail.long() if shape.has_tail else torch.zeros_like(slot, dtype=torch.long)
    piece = slot.cumsum(1)
    num_slots = piece[:, -1:]
    most = int(num_slots.max())
    if shape.middle == "block":
        return torch.where(is_tail, 2, (piece > 0).long())
    if shape.has_tail:
        return torch.where(is_tail, most + 1, piece)
    number = torch.where(piece == num_slots, most, piece)
    if most:  # rows without slots: the end goes with the others' last pieces, the rest with their prefixes
        without = num_slots == 0
        width = int(((number == most) & real & ~without).sum(1).max())
        from_end = real.flip(1).cumsum(1).flip(1)
        number = torch.where(without & (from_end > width), 0, number)
    return number
