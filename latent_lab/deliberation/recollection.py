"""Vectors by name: what ``task.methods`` such as ``thoughts`` and ``condensed`` fill the first slots of a prompt with.

Thoughts are never sampled, so a question and the number of attempts made of it decide them; with what was written below it they
decide the vectors of that. Equal ones are made once, for all chains, and no row of a ledger has to hold a vector.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from latent_lab.batching import collate
from latent_lab.calls.client import LatentMemory, TraceMemory
from latent_lab.deliberation.condensing import reading, vectors
from latent_lab.grading.evaluate import Solver
from latent_lab.reasoner import ThoughtEdit
from latent_lab.sequences import Sequence as Laid

AS_TEXT = {"add_special_tokens": False, "split_special_tokens": True}
"""How a tokenizer reads what was written: whatever it spells out, it is text."""
Memory = LatentMemory | TraceMemory
Layout = Callable[[Sequence[str], Sequence[int]], list[Laid]]
"""Lays questions out as prompts, each with so many slots."""


@dataclass
class Recollection:
    """What a run thought in earlier attempts, or makes of what it wrote."""

    solver: Solver
    layout: Layout
    _known: dict[Memory, Tensor] = field(default_factory=dict)

    def num_kept(self, memory: Memory | None) -> int:
        """Vectors that a memory holds: after each attempt there are the thoughts it was given and those it thought anew."""
        if not isinstance(memory, LatentMemory):
            return memory.keep if memory else 0
        kept = 0
        for _ in range(memory.attempts):
            kept = min(memory.keep, kept + self.solver.num_slots)
        return kept

    def edit(self, memories: Sequence[Memory | None]) -> ThoughtEdit | None:
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

    def recalled(self, memories: Sequence[Memory]) -> dict[Memory, Tensor]:
        """The vectors ``[kept, width]`` of each memory, zeroed or not: what is not known yet is made."""
        own: dict[Memory, Memory] = {memory: replace(memory, is_zeroed=False) for memory in memories}
        missing = [memory for memory in dict.fromkeys(own.values()) if memory not in self._known]
        thoughts = [memory for memory in missing if isinstance(memory, LatentMemory)]
        ways: dict[str, list[TraceMemory]] = {}
        for memory in missing:
            if isinstance(memory, TraceMemory):
                ways.setdefault(memory.by, []).append(memory)
        size = self.solver.batch_size
        for start in range(0, len(thoughts), size):
            self._think(thoughts[start : start + size])
        for traces in ways.values():
            for start in range(0, len(traces), size):
                self._read(traces[start : start + size])
        return {memory: self._known[named] for memory, named in own.items()}

    @torch.no_grad()
    def _think(self, memories: Sequence[LatentMemory]) -> None:
        """Think what was thought, attempt by attempt."""
        before = [replace(memory, attempts=memory.attempts - 1) if memory.attempts > 1 else None for memory in memories]
        counts = [self.num_kept(memory) + self.solver.num_slots for memory in before]
        batch = collate(self.layout([memory.question for memory in memories], counts), self.solver.backbone.pad)
        batch = batch.to(self.solver.reasoner.device)
        given, edit = (batch.input_ids, batch.attention_mask, None, batch.position_ids), self.edit(before)
        out = self.solver.reasoner(*given, is_closed=batch.is_closed, edit=edit)
        for memory, count, thoughts in zip(memories, counts, out.thoughts, strict=True):
            self._known[memory] = thoughts[count - self.num_kept(memory) : count]

    def _read(self, memories: Sequence[TraceMemory]) -> None:
        """Make vectors of traces, all in one way."""
        traces = self.traces(memories)
        made = vectors(self.solver, self.readings(memories, traces), [len(trace) for trace in traces], memories)
        self._known.update(zip(memories, made, strict=True))

    def readings(self, memories: Sequence[TraceMemory], traces: Sequence[Sequence[int]]) -> list[Laid]:
        """What is read to make vectors of traces: the question with as many slots as ever, and the trace below it."""
        prompts = self.layout([memory.question for memory in memories], [self.solver.num_slots] * len(memories))
        latent = self.solver.backbone.tokens.latent
        return [reading(*each, latent) for each in zip(prompts, traces, memories, strict=True)]

    def traces(self, memories: Sequence[TraceMemory]) -> list[list[int]]:
        """The tokens of what was written."""
        texts = [memory.text for memory in memories]
        ids: list[list[int]] = self.solver.backbone.tokenizer(texts, **AS_TEXT)["input_ids"]
        return ids
