"""Letting a model answer while its thoughts are edited: batches, donors, and what came of it.

The edits themselves are made by the reasoner (:mod:`latent_lab.edits`); here they get their donors. Thoughts after an edited one
are thought anew, unless they are edited too: an edit acts as it would while the model thinks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from latent_lab.batching import collate
from latent_lab.edits import Edits, Recorder
from latent_lab.grading.evaluate import Solver, evenly
from latent_lab.problems import Problem
from latent_lab.reasoner import Paused
from latent_lab.sequences import Encoded

KINDS = ("cache", "step", "thought", "residual")
"""What can be exchanged: ``cache``, what a slot is remembered by (its keys and values in all blocks); ``step``, what a thought is
remembered by: the first block's in its slot, which are made of it alone, and the later blocks' in the slot before, where it was
being made; ``thought``, the vector fed into a slot; ``residual``, the state at a slot after a block."""
FIRST = 4
"""An answer's first token comes after so many tokens at most; before it stands the answer's mark."""
MARKS = ("###", "[A]", "####")


@dataclass
class Written:
    """What a model wrote for each problem."""

    ids: list[list[int]]
    """The tokens up to the end-of-text token."""
    answers: list[str | None]
    """The answer found in it; None where there is none."""
    correct: list[bool]
    first: Tensor | None = None
    """``[problems, vocabulary]``: log-probabilities of the first token of the answer proper."""
    places: Tensor | None = None
    """``[problems]``: tokens written before that one."""

    def __add__(self, other: "Written") -> "Written":
        """Both, one after the other."""
        first = None if self.first is None or other.first is None else torch.cat([self.first, other.first])
        places = None if self.places is None or other.places is None else torch.cat([self.places, other.places])
        return Written(self.ids + other.ids, self.answers + other.answers, self.correct + other.correct, first, places)


class FirstToken(LogitsProcessor):
    """Keeps the log-probabilities of the first tokens of a reply; changes nothing. One object serves one call."""

    def __init__(self, places: Tensor | None = None) -> None:
        self.places = places
        """``[rows]``: which token is wanted, if that is known already."""
        self.kept: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """``[rows, tokens]`` so far and ``[rows, vocabulary]`` scores of the next token to scores."""
        if len(self.kept) < FIRST:
            is_wanted = self.places is None or bool((self.places == len(self.kept)).any())
            self.kept.append(scores.float().log_softmax(-1) if is_wanted else scores)
        return scores

    def at(self, places: Tensor) -> Tensor:
        """``[rows, vocabulary]``: of token number ``places [rows]``, or of the last that was kept."""
        most = len(self.kept) - 1
        places = places.clamp(max=most)
        if len(set(places.tolist())) == 1:
            return self.kept[int(places[0])].float().log_softmax(-1).cpu()
        return torch.stack([self.kept[place][row].float().log_softmax(-1) for row, place in enumerate(places.tolist())]).cpu()


def place_of_answer(solver: Solver, ids: Sequence[int]) -> int:
    """How many tokens of a reply are its answer's mark, and say nothing yet."""
    for place in range(min(len(ids), FIRST)):
        text = str(solver.backbone.tokenizer.decode(list(ids[: place + 1]))).strip()
        if not any(mark.startswith(text) for mark in MARKS):
            return place
    return 0


class Prompts:
    """One batch of prompts, from which the model goes on under many edits: what comes before an edit is run once."""

    def __init__(self, solver: Solver, encoded: Sequence[Encoded]) -> None:
        self.solver = solver
        sequences = solver.prompts(encoded)
        self.counts = [sequence.num_slots for sequence in sequences]
        """Slots of each row."""
        self.batch = collate(sequences, solver.backbone.pad).to(solver.reasoner.device)
        self._paused: dict[str, Paused | None] = {}

    def given(self, edits: Edits, rows: Tensor | None) -> dict[str, Any]:
        """What :meth:`LatentReasoner.generate` is given for rows (default: all) of the batch."""
        batch = self.batch
        nothing_yet = edits.thought is None and edits.residual is None
        before = "answer" if nothing_yet else "thoughts"
        if before not in self._paused:
            self._paused[before] = self.solver.reasoner.pause(
                batch.input_ids, batch.attention_mask, before=before, is_closed=batch.is_closed
            )
        paused = self._paused[before]
        if paused is not None:
            return {"input_ids": paused if rows is None else paused.rows(rows)}
        every = slice(None) if rows is None else rows
        closed = None if batch.is_closed is None else batch.is_closed[every]
        return {"input_ids": batch.input_ids[every], "attention_mask": batch.attention_mask[every], "is_closed": closed}


@torch.no_grad()
def write(
    prompts: Prompts,
    gold: Sequence[str],
    edits: Edits | None = None,
    *,
    rows: Tensor | None = None,
    most_tokens: int | None = None,
    places: Tensor | None = None,
    wants_first: bool = False,
) -> Written:
    """Let a model answer a batch under ``edits``; ``rows`` are those of its rows to answer (default: all), once or more often.

    ``gold`` are the right answers. A reply longer than ``most_tokens`` (default: the solver's limit) is cut off, without answer.
    ``places [rows]`` says where the first token of the answer stands (default: where the reply has it).
    """
    solver, edits = prompts.solver, edits or Edits()
    limit = min(most_tokens or solver.max_new_tokens, solver.max_new_tokens, solver.room - prompts.batch.input_ids.shape[1])
    eos, first = solver.backbone.tokenizer.eos_token_id, FirstToken(places)
    processors: dict[str, Any] = {"logits_processor": [first]} if wants_first else {}
    new = solver.reasoner.generate(
        **prompts.given(edits, rows),
        max_new_tokens=max(limit, 1),
        eos_token_id=eos,
        pad_token_id=solver.backbone.pad,
        edit=edits.thought,
        edit_cache=edits.cache,
        edit_residual=edits.residual,
        **processors,
    ).tolist()
    made = Written([], [], [])
    for row, right in zip(new, gold, strict=True):
        made.ids.append(row[: row.index(eos)] if eos in row else row)
        verdict = solver.rules.verdict(solver.backbone.tokenizer.decode(made.ids[-1]), right, truncated=eos not in row)
        made.answers.append(verdict.answer)
        made.correct.append(verdict.correct is True)
    if wants_first:
        made.places = torch.tensor([place_of_answer(solver, ids) for ids in made.ids]) if places is None else places
        made.first = first.at(made.places)
    return made


def write_all(solver: Solver, problems: Sequence[Problem], encoded: Sequence[Encoded]) -> Written:
    """Let a model answer all problems, batch by batch, without edits."""
    whole = Written([], [], [])
    for part in evenly(list(zip(problems, encoded, strict=True)), solver.batch_size):
        whole = whole + write(Prompts(solver, [e for _, e in part]), [p.answer for p, _ in part])
    return whole


def hooks(solver: Solver, kept: Recorder, kinds: Sequence[str] = KINDS) -> dict[str, Any]:
    """The arguments of a forward that make it keep what its slots hold; nothing is fed into pause tokens."""
    found: dict[str, Any] = {"edit_cache": kept.cache} if {"cache", "step"} & set(kinds) else {}
    if "thought" in kinds and solver.reasoner.loop.feeds == "thoughts":
        found["edit"] = kept.thought
    return found | ({"edit_residual": kept.residual} if "residual" in kinds else {})


def exchange(kind: str, donor: Recorder, chosen: Tensor, block: int | None = None) -> Edits:
    """Put what a donor holds in the place of what the chosen slots hold; row i takes from the donor's row i.

    ``chosen [batch, slots]`` may be wider than there are slots. ``block`` is needed for residuals. ValueError for a kind that
    does not exist.
    """
    if kind in ("cache", "step"):
        before = torch.nn.functional.pad(chosen[:, 1:], (0, 1)) if kind == "step" else chosen

        def cache(number: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
            here = chosen if number == 1 else before
            return blend(here, donor.keys[number], keys), blend(here, donor.values[number], values)

        return Edits(cache=cache)
    if kind == "thought":
        return Edits(
            thought=lambda slot, thoughts, active: (
                torch.where(chosen[:, slot, None], donor.thoughts[slot].to(thoughts), thoughts)
                if slot in donor.thoughts
                else thoughts
            )
        )
    if kind == "residual":
        return Edits(
            residual=lambda slot, number, states, active: (
                torch.where(chosen[:, slot, None], donor.residuals[slot, number].to(states), states)
                if number == block and (slot, number) in donor.residuals
                else states
            )
        )
    raise ValueError(f"kind={kind}: allowed are {', '.join(KINDS)}")


def blend(chosen: Tensor, given: Tensor, held: Tensor) -> Tensor:
    """Keys or values ``[batch, heads, slots, width]``: ``given`` in the chosen slots, ``held`` in the others."""
    most = held.shape[2]
    if given.shape[2] < most:
        given = torch.nn.functional.pad(given, (0, 0, 0, most - given.shape[2]))
    return torch.where(chosen[:, None, :most, None], given[:, :, :most].to(held), held)


def noise_like(vectors: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian vectors ``[..., width]``, each as long as the one whose place it takes."""
    drawn = torch.randn(vectors.shape, generator=generator).to(vectors)
    return drawn * (vectors.norm(dim=-1, keepdim=True) / drawn.norm(dim=-1, keepdim=True).clamp(min=1e-9))


def noisy(kept: Recorder, generator: torch.Generator) -> Recorder:
    """A donor of nothing but noise: each vector is replaced by a Gaussian one of its length."""
    parts = (kept.thoughts, kept.keys, kept.values, kept.residuals)
    made: list[Any] = [{place: noise_like(held, generator) for place, held in part.items()} for part in parts]
    return Recorder(*made)
