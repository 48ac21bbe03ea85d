"""Thoughts of earlier attempts, thought again by name: what ``task.methods=[thoughts]`` fills the first slots of a prompt with.

Thoughts are never sampled, so a question and the number of attempts made of it decide them. They are made once for all chains of
a problem, and no row of a ledger has to hold a vector.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from latent_lab.batching import collate
from latent_lab.calls.client import LatentMemory
from latent_lab.grading.evaluate import Solver
from latent_lab.reasoner import ThoughtEdit
from latent_lab.sequences import Sequence as Laid

Layout = Callable[[Sequence[str], Sequence[int]], list[Laid]]
"""Lays questions out as prompts, each with so many slots."""


@dataclass
class Recollection:
    """What a run thought in earlier attempts."""

    solver: Solver
    layout: Layout
    _known: dict[LatentMemory, Tensor] = field(default_factory=dict)

    def num_kept(self, memory: LatentMemory | None) -> int:
        """Thoughts that a memory holds: after each attempt there are those it was given and those it thought anew."""
        kept = 0
        for _ in range(memory.attempts if memory else 0):
            kept = min(memory.keep if memory else 0, kept + self.solver.num_slots)
        return kept

    def edit(self, memories: Sequence[LatentMemory | None]) -> ThoughtEdit | None:
        """What fills the first slots of a batch of prompts, one memory a row; None where no row has any."""
        kept = torch.tensor([self.num_kept(memory) for memory in memories], device=self.solver.reasoner.device)
        if not bool(kept.any()):
            return None
        held = self.recalled([memory for memory in memories if memory])
        vectors = [held[memory] for memory in memories if memory]
        given = vectors[0].new_zeros(len(memories), int(kept.max()), vectors[0].shape[-1])
        for i, memory in enumerate(memories):
            if memory and not memory.is_zeroed:
                given[i, : len(held[memory])] = held[memory]

        def edit(slot: int, thoughts: Tensor, active: Tensor) -> Tensor:
            if slot >= given.shape[1]:
                return thoughts
            return torch.where((slot < kept)[:, None], given[:, slot], thoughts)

        return edit

    @torch.no_grad()
    def recalled(self, memories: Sequence[LatentMemory]) -> dict[LatentMemory, Tensor]:
        """The thoughts ``[kept, width]`` of each memory, zeroed or not: what is not known yet is thought, attempt by attempt."""
        own = {memory: replace(memory, is_zeroed=False) for memory in memories}
        missing = [memory for memory in dict.fromkeys(own.values()) if memory not in self._known]
        for start in range(0, len(missing), self.solver.batch_size):
            part = missing[start : start + self.solver.batch_size]
            before = [replace(memory, attempts=memory.attempts - 1) if memory.attempts > 1 else None for memory in part]
            counts = [self.num_kept(memory) + self.solver.num_slots for memory in before]
            batch = collate(self.layout([memory.question for memory in part], counts), self.solver.backbone.pad)
            batch = batch.to(self.solver.reasoner.device)
            out = self.solver.reasoner(batch.input_ids, batch.attention_mask, is_closed=batch.is_closed, edit=self.edit(before))
            for memory, count, thoughts in zip(part, counts, out.thoughts, strict=True):
                self._known[memory] = thoughts[count - self.num_kept(memory) : count]
        return {memory: self._known[named] for memory, named in own.items()}
