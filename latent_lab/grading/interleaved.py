"""Thoughts where the model says so: it writes, and wherever it writes ``<|latent|>`` it thinks, and goes on writing."""

from collections.abc import Sequence as Seq
from typing import TYPE_CHECKING

from torch import Tensor

from latent_lab.batching import collate
from latent_lab.reasoner import ThoughtEdit
from latent_lab.sequences import Encoded, Part, Role, Sequence, lay

if TYPE_CHECKING:
    from latent_lab.grading.evaluate import Solver


def thought_through(solver: "Solver", problems: Seq[Encoded], each: int, given: Tensor | None) -> list[Sequence]:
    """Prompts of one batch with all that was written up to the last thought; ``each`` slots stand where the model thinks.

    Every round writes on from the thoughts so far, which are thought again: what is written is that of one run over everything
    before it. ``given`` are thoughts put in place of its own, ``[batch, slots, width]``. At most the solver's ``num_slots``.
    """
    tokens, eos = solver.backbone.tokens, solver.backbone.tokenizer.eos_token_id
    prompts = [solver.layout.prompt(p, tokens, solver.stage) for p in problems]
    going = list(range(len(problems)))
    for _ in range(solver.num_slots // each):
        batch = collate([prompts[i] for i in going], solver.backbone.pad).to(solver.reasoner.device)
        new = solver.generate(batch, [eos, tokens.latent], in_place(given, going)).tolist()
        thinking = []
        for i, row in zip(going, new, strict=True):
            end = next((place for place, token in enumerate(row) if token in (eos, tokens.latent)), None)
            if end is None or row[end] == eos or len(prompts[i].ids) + end + each >= solver.room:
                continue
            prompts[i] = thinking_next(prompts[i], row[:end], (tokens.latent,) * each)
            thinking.append(i)
        going = thinking
        if not going:
            break
    return prompts


def thinking_next(prompt: Sequence, written: Seq[int], slots: tuple[int, ...]) -> Sequence:
    """A prompt with more written, and slots after it."""
    parts: list[Part] = [(role, (i,), False) for role, i in zip(prompt.roles, prompt.ids, strict=True)]
    parts += [(Role.STEP, tuple(written), False), (Role.LATENT, slots, False)]
    return lay(prompt.problem, parts, [*prompt.step_of_slot, *[None] * len(slots)])


def in_place(given: Tensor | None, rows: Seq[int] | None = None) -> ThoughtEdit | None:
    """The edit that puts thoughts ``[batch, slots, width]`` in place of a batch's own, or of some of its ``rows``.

    Where a row thinks more often than it is given thoughts for, the last one is given again.
    """
    if given is None:
        return None
    chosen = given if rows is None else given[list(rows)]
    return lambda slot, thoughts, active: chosen[:, min(slot, chosen.shape[1] - 1)].to(thoughts.dtype)
