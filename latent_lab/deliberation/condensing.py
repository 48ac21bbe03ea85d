"""A written trace made into vectors: what ``task.methods=[condensed]`` and ``[averaged]`` hand on in place of its text.

The run reads the question and the trace below it as it would to go on writing. Then it thinks (``condensed``: the thoughts), or
all that was heard while the trace was read is averaged over equal parts of it (``averaged``).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from latent_lab.batching import collate
from latent_lab.calls.client import TraceMemory
from latent_lab.grading.evaluate import Solver
from latent_lab.sequences import Role, followed
from latent_lab.sequences import Sequence as Laid

CONDENSED = "condensed"


def reading(prompt: Laid, trace: Sequence[int], memory: TraceMemory, latent: int) -> Laid:
    """A prompt with a trace below it and, where it is to be thought over, a slot for each thought.

    Slots follow the marker that begins thinking where the prompt has one; a run that never thought has none, and thinks at once.
    """
    read = followed(prompt, [(Role.STEP, tuple(trace), False)])
    if memory.by != CONDENSED:
        return read
    start = tuple(token for token, role in zip(prompt.ids, prompt.roles, strict=True) if role == Role.START)
    slots = (latent,) * memory.keep
    return followed(read, [(Role.START, start, False), (Role.LATENT, slots, False)], (None,) * memory.keep)


@torch.no_grad()
def vectors(solver: Solver, read: Sequence[Laid], lengths: Sequence[int], memories: Sequence[TraceMemory]) -> list[Tensor]:
    """The vectors ``[keep, width]`` of traces so long, read in one batch; all memories are made in one way."""
    batch = collate(read, solver.backbone.pad).to(solver.reasoner.device)
    if memories[0].by == CONDENSED:
        thoughts = solver.reasoner(batch.input_ids, batch.attention_mask, position_ids=batch.position_ids).thoughts
        rows = zip(thoughts, read, memories, strict=True)
        return [row[laid.num_slots - memory.keep : laid.num_slots] for row, laid, memory in rows]
    places = batch.position_ids
    heard = solver.reasoner(batch.input_ids, batch.attention_mask, None, places, is_closed=batch.is_closed, heard=True).heard
    return [
        averaged(row[len(laid.ids) - max(length, 1) : len(laid.ids)], memory.keep)
        for row, laid, length, memory in zip(heard, read, lengths, memories, strict=True)
    ]


def averaged(heard: Tensor, parts: int) -> Tensor:
    """``[tokens, width]`` to ``[parts, width]``: means over equal parts, which share tokens where they do not divide evenly."""
    return nn.functional.adaptive_avg_pool1d(heard.T[None], parts)[0].T
