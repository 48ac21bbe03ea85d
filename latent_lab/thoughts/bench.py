"""Problems a model answers again and again, each time with its thoughts edited in another way, beside its clean answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from latent_lab.edits import Edits, Recorder
from latent_lab.grading.evaluate import Solver, evenly
from latent_lab.problems import Problem
from latent_lab.sequences import Encoded
from latent_lab.thoughts.editing import KINDS, Prompts, Written, exchange, hooks, write
from latent_lab.thoughts.scores import scores
from latent_lab.thoughts.sources import Vectors

EditsOf = Callable[[slice], Edits]
"""The edits of the problems in a slice."""


@dataclass
class Bench:
    """What is run many times. Made by :func:`bench`."""

    solver: Solver
    problems: list[Problem]
    encoded: list[Encoded]
    parts: list[tuple[slice, Prompts]]
    clean: Written
    kept: list[Recorder] = field(default_factory=list)
    """What each part's slots hold in the clean run; the residual after all blocks, too."""

    @property
    def slots(self) -> int:
        """Slots of the prompt that has most."""
        return max((count for _, prompts in self.parts for count in prompts.counts), default=0)

    @property
    def feeds(self) -> bool:
        """Whether vectors are fed into the slots; nothing is into pause tokens."""
        return self.solver.reasoner.loop.feeds == "thoughts"

    def thoughts(self) -> Tensor:
        """``[problems, slots, width]``: the vectors fed in, in the clean run; zero where a prompt has no such slot."""
        width = self.solver.reasoner.model.config.hidden_size
        whole = torch.zeros(len(self.problems), self.slots, width)
        for (rows, prompts), kept in zip(self.parts, self.kept, strict=True):
            for slot, vectors in kept.thoughts.items():
                has = torch.tensor(prompts.counts)[:, None] > slot
                whole[rows, slot] = torch.where(has, vectors.float().cpu(), 0.0)
        return whole

    def run(self, edits_of: EditsOf) -> Written:
        """The answers under edits; a reply may be three tokens longer than the longest clean one, any longer has no answer."""
        limit = max(map(len, self.clean.ids), default=1) + 4
        whole: Written | None = None
        for rows, prompts in self.parts:
            gold = [p.answer for p in self.problems[rows]]
            places = None if self.clean.places is None else self.clean.places[rows]
            made = write(prompts, gold, edits_of(rows), most_tokens=limit, places=places, wants_first=True)
            whole = made if whole is None else whole + made
        assert whole is not None
        return whole

    def with_slots(self, count: int) -> Written:
        """The answers with so many slots in the prompts, unedited."""
        return bench(replace(self.solver, num_slots=count, thoughts_by="fixed"), self.problems, self.encoded, self.clean).clean

    def row(self, made: Written, chosen: Sequence[int] | None = None, **more: Sequence[bool]) -> dict[str, Any]:
        """Scores over the chosen problems (default: all): ``accuracy``, ``flips`` (another answer than the clean one) and ``kl``.

        ``kl`` is the divergence, in bits, of the distribution of the answer's first token from the clean one. ``clean`` is the
        accuracy of the same problems unedited; ``more`` are further hits, one for each problem.
        """
        places = list(range(len(self.problems))) if chosen is None else list(chosen)
        flips = [mine != clean for mine, clean in zip(made.answers, self.clean.answers, strict=True)]
        columns: list[Sequence[float]] = [made.correct, flips, divergence(self.clean, made), self.clean.correct, *more.values()]
        made_of = scores([[float(column[i]) for i in places] for column in columns], [self.problems[i].id for i in places])
        return {"n": len(places), **dict(zip(("accuracy", "flips", "kl", "clean", *more), made_of, strict=True))}

    def replaced(self, vectors: Tensor, slots: Sequence[int], chosen: Tensor | None = None) -> EditsOf:
        """Feed ``vectors [problems, slots, width]`` into some slots, of the chosen problems (default: all)."""
        return self.changed(lambda rows, slot, thoughts: vectors[rows, slot], slots, chosen)

    def changed(
        self, change: Callable[[slice, int, Tensor], Tensor], slots: Sequence[int], chosen: Tensor | None = None
    ) -> EditsOf:
        """Feed what ``change(rows, slot, thoughts[batch, width])`` makes of them into some slots, of the chosen problems."""
        every = torch.ones(len(self.problems), dtype=torch.bool) if chosen is None else chosen

        def edits_of(rows: slice) -> Edits:
            def edit(slot: int, thoughts: Tensor, active: Tensor) -> Tensor:
                if slot not in slots:
                    return thoughts
                return torch.where(every[rows, None].to(thoughts.device), change(rows, slot, thoughts).to(thoughts), thoughts)

            return Edits(thought=edit)

        return edits_of

    def transplanted(self, donors: Tensor, kind: str, slots: Sequence[int], block: int | None = None) -> EditsOf:
        """Put what the slots of ``donors [problems]`` hold into the same slots; for kinds see ``editing.KINDS``."""

        def edits_of(rows: slice) -> Edits:
            chosen = torch.zeros(rows.stop - rows.start, max(self.slots, max(slots, default=0) + 1), dtype=torch.bool)
            chosen[:, list(slots)] = True
            return exchange(kind, self.gathered(donors[rows], kind), chosen.to(self.solver.reasoner.device), block)

        return edits_of

    def gathered(self, places: Tensor, kind: str) -> Recorder:
        """What the slots of problems, by place, hold in the clean run, as rows of one batch."""
        size = max(rows.stop - rows.start for rows, _ in self.parts)
        names = {"cache": ("keys", "values"), "step": ("keys", "values"), "thought": ("thoughts",), "residual": ("residuals",)}[
            kind
        ]
        starts = torch.tensor([rows.start for rows, _ in self.parts])
        part = torch.searchsorted(starts, places, right=True) - 1
        index = part * size + places - starts[part]
        made = Recorder()
        for name in names:
            for key in dict.fromkeys(key for kept in self.kept for key in getattr(kept, name)):
                getattr(made, name)[key] = self._padded(name, key, size)[index.to(self.solver.reasoner.device)]
        return made

    def _padded(self, name: str, key: Any, size: int) -> Tensor:
        """What all parts keep under a name, each filled up to ``size`` rows and to the most slots."""
        found = [getattr(kept, name).get(key) for kept in self.kept]
        like = next(held for held in found if held is not None)
        most = max(held.shape[-2] for held in found if held is not None)
        pieces = []
        for held in found:
            held = torch.zeros_like(like[:0]) if held is None else held
            if held.dim() == 4 and held.shape[2] < most:
                held = torch.nn.functional.pad(held, (0, 0, 0, most - held.shape[2]))
            pieces.append(torch.cat([held, held.new_zeros(size - len(held), *held.shape[1:])]))
        return torch.cat(pieces)

    def donors(self, groups: Sequence[str], seed: int) -> Tensor:
        """``[problems]``: for each problem another of the same group; any other where it is alone."""
        nothing = torch.zeros(len(self.problems), 1)
        ids = [p.id for p in self.problems]
        return Vectors(nothing, [0] * len(ids), ids, list(groups), ids, nothing[:1]).donors(groups, seed)


def bench(solver: Solver, problems: Sequence[Problem], encoded: Sequence[Encoded], like: Written | None = None) -> Bench:
    """Run problems once, clean, and keep what their slots hold. With ``like`` only the answers, where those of ``like`` stand."""
    parts: list[tuple[slice, Prompts]] = []
    kept: list[Recorder] = []
    clean: Written | None = None
    first = 0
    for part in evenly(list(zip(problems, encoded, strict=True)), solver.batch_size):
        prompts, recorder = Prompts(solver, [e for _, e in part]), Recorder()
        rows = slice(first, first + len(part))
        made = hooks(solver, recorder, KINDS) if like is None and max(prompts.counts) else {}
        edits = Edits(made.get("edit"), made.get("edit_cache"), made.get("edit_residual"))
        places = like.places[rows] if like is not None and like.places is not None else None
        written = write(prompts, [p.answer for p, _ in part], edits, places=places, wants_first=True)
        clean = written if clean is None else clean + written
        parts.append((rows, prompts))
        kept.append(recorder)
        first += len(part)
    return Bench(solver, list(problems), list(encoded), parts, clean or Written([], [], []), kept)


def divergence(clean: Written, made: Written) -> list[float]:
    """``[problems]``: Kullback-Leibler divergence of the first token's distribution from the clean one, in bits."""
    assert clean.first is not None
    assert made.first is not None
    bits = (clean.first.exp() * (clean.first - made.first).clamp(-1e4, 1e4)).nan_to_num().sum(-1) / torch.log(torch.tensor(2.0))
    return bits.clamp(min=0).tolist()
