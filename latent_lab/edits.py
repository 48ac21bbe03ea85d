"""Edits at inference: what may be changed while a model thinks, and how to keep what another run held.

Three places: the thought before it is fed into a slot; the residual stream after a block at a slot; and the keys and values that
the slots hold, once all of them are filled and before anything after them is run. Blocks count from 1, as layers do in a store.
An edit that returns what it was given changes nothing. Jacobi iterations are edited in every round, so that putting the last
round's back is the identity once the rounds have converged only.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

ThoughtEdit = Callable[[int, Tensor, Tensor], Tensor]
"""A change to thoughts: ``edit(slot, thoughts[batch, width], active[batch])`` returns what is fed in instead; ``active`` marks
the rows that have this slot."""

CacheEdit = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]
"""A change to what slots are remembered by: ``edit_cache(block, keys, values)``, both ``[batch, heads, slots, width of a head]``,
returns those put in their place; zero, and ignored when returned, where a row has no such slot. Keys hold their position where
the model rotates them, so a donor should have its slots at the same positions."""

ResidualEdit = Callable[[int, int, Tensor, Tensor], Tensor]
"""A change to the residual stream: ``edit_residual(slot, block, states[batch, width], active[batch])`` returns what goes on from
there; before the final norm, also after the last block."""


@dataclass(frozen=True)
class Edits:
    """What is changed in one run; None: nothing there."""

    thought: ThoughtEdit | None = None
    cache: CacheEdit | None = None
    residual: ResidualEdit | None = None


@dataclass
class Recorder:
    """Keeps what a run holds at its slots; its methods are edits that change nothing."""

    thoughts: dict[int, Tensor] = field(default_factory=dict)
    """By slot ``[batch, width]``."""
    keys: dict[int, Tensor] = field(default_factory=dict)
    """By block ``[batch, heads, slots, width of a head]``."""
    values: dict[int, Tensor] = field(default_factory=dict)
    """By block, as ``keys``."""
    residuals: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    """By slot and block ``[batch, width]``."""

    def thought(self, slot: int, thoughts: Tensor, active: Tensor) -> Tensor:
        """See :data:`ThoughtEdit`."""
        self.thoughts[slot] = thoughts.detach()
        return thoughts

    def cache(self, block: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """See :data:`CacheEdit`."""
        self.keys[block], self.values[block] = keys.detach(), values.detach()
        return keys, values

    def residual(self, slot: int, block: int, states: Tensor, active: Tensor) -> Tensor:
        """See :data:`ResidualEdit`."""
        self.residuals[slot, block] = states.detach()
        return states

    def rows(self, index: Tensor) -> "Recorder":
        """The same of the rows ``index``, in that order: donors for a batch whose row i takes from row ``index[i]``."""
        return Recorder(
            {slot: kept[index] for slot, kept in self.thoughts.items()},
            {block: kept[index] for block, kept in self.keys.items()},
            {block: kept[index] for block, kept in self.values.items()},
            {place: kept[index] for place, kept in self.residuals.items()},
        )


@dataclass(frozen=True)
class Slots:
    """Where slots lie in some columns: three ``[slots there]``."""

    rows: Tensor
    columns: Tensor
    numbers: Tensor
    """The number of each among its row's slots."""

    @classmethod
    def of(cls, is_slot: Tensor, first: int = 0, width: int | None = None) -> "Slots":
        """The slots among ``width`` columns from ``first`` on, counted from there; ``is_slot [batch, all columns]``."""
        width = is_slot.shape[1] - first if width is None else width
        rows, columns = is_slot[:, first : first + width].nonzero(as_tuple=True)
        return cls(rows, columns, is_slot.cumsum(1)[rows, columns + first] - 1)

    def changed(self, states_BWD: Tensor, edit: Callable[[int, Tensor, Tensor], Tensor]) -> Tensor:
        """States ``[batch, columns, width]`` after ``edit(slot, states[batch, width], active[batch])`` of each slot in turn."""
        for slot in sorted(set(self.numbers.tolist())):
            here = self.numbers == slot
            rows, columns = self.rows[here], self.columns[here]
            active = torch.zeros(len(states_BWD), dtype=torch.bool, device=rows.device).index_fill(0, rows, True)
            given = torch.zeros_like(states_BWD[:, 0]).index_put((rows,), states_BWD[rows, columns])
            new = edit(slot, given, active)
            states_BWD = states_BWD.index_put((rows, columns), new[rows].to(states_BWD.dtype))
        return states_BWD

    def taken(self, held_BHCD: Tensor, most: int) -> Tensor:
        """``[batch, heads, slots, width]`` out of keys or values of all columns; zero where a row has no such slot."""
        by_column = held_BHCD.transpose(1, 2)
        empty = by_column.new_zeros(len(by_column), most, *by_column.shape[2:])
        return empty.index_put((self.rows, self.numbers), by_column[self.rows, self.columns]).transpose(1, 2)

    def put(self, held_BHCD: Tensor, given_BHKD: Tensor) -> Tensor:
        """Keys or values of all columns with those of the slots replaced."""
        new = given_BHKD.transpose(1, 2)[self.rows, self.numbers].to(held_BHCD.dtype)
        return held_BHCD.transpose(1, 2).index_put((self.rows, self.columns), new).transpose(1, 2)


@contextmanager
def edited_blocks(blocks: Sequence[nn.Module], slots: Slots, edit: ResidualEdit) -> Iterator[None]:
    """While it lasts, what each block hands on at the slots is edited; no hook stays behind, whatever happens."""

    def hook_of(block: int) -> Callable[..., Any]:
        def hook(module: nn.Module, given: Any, out: Any) -> Any:
            first, *rest = out if isinstance(out, tuple) else (out,)
            new = slots.changed(first, lambda slot, states, active: edit(slot, block, states, active))
            return (new, *rest) if isinstance(out, tuple) else new

        return hook

    handles = [block.register_forward_hook(hook_of(number)) for number, block in enumerate(blocks, start=1)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
