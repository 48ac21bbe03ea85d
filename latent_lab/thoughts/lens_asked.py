"""What lenses are asked of a store of thoughts: of each slot the fields of the step it stands for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latent_lab.reasoner import LatentReasoner
from latent_lab.thoughts.grammar import Grammar
from latent_lab.thoughts.lens_kinds import Scores, Seen, Tokenizer, first_tokens, is_digit, look
from latent_lab.thoughts.probe_targets import Targets
from latent_lab.thoughts.store import ThoughtStore


@dataclass(frozen=True)
class Words:
    """The tokens that lenses are asked about."""

    tokens: dict[str, list[tuple[int, ...]]]
    """For each field and each of its values the tokens it may begin with."""
    digits: Tensor
    """``[vocabulary]``, bool: tokens that are digits."""

    @staticmethod
    def of(reasoner: LatentReasoner, tokenizer: Tokenizer, grammar: Grammar) -> "Words":
        """The words of a grammar."""
        head: Any = reasoner.model.get_output_embeddings()
        tokens = {field: [first_tokens(tokenizer, value) for value in values] for field, values in grammar.values.items()}
        return Words(tokens, is_digit(tokenizer, head.weight.shape[0]))


@dataclass(frozen=True)
class Asked:
    """What lenses are asked of a store."""

    store: ThoughtStore
    y: Targets
    own: tuple[int | None, ...]
    """For each slot the number (from 0) of the step it stands for."""
    num_problems: int
    """Only so many of the first problems are looked at."""
    words: Words
    device: torch.device
    seed: int

    def rows(self, slot: int) -> Tensor:
        """Numbers of the problems that have this slot and labels for its step."""
        step = self.own[slot]
        if step is None:
            return torch.zeros(0, dtype=torch.long)
        labelled = torch.stack([y[:, step] >= 0 for y in self.y.labels.values()]).any(0) & (self.store.num_slots > slot)
        return labelled[: self.num_problems].nonzero()[:, 0]

    def look(self, scores: Scores, layer: int) -> dict[int, Seen]:
        """Look at every slot of a layer; by slot, those with anything to be asked."""
        states = self.store.layer(layer)
        rows = {slot: self.rows(slot) for slot in range(len(self.own))}
        return {slot: self.look_at(scores, states[index, slot]) for slot, index in rows.items() if len(index)}

    def look_at(self, scores: Scores, states: Tensor) -> Seen:
        """Look at states ``[n, width]``, once where they are all the same."""
        is_one = bool((states == states[:1]).all())
        seen = look(scores, states[:1] if is_one else states, self.words.tokens, self.words.digits, self.device)
        return seen.repeated(len(states)) if is_one else seen

    def donors(self, count: int, slot: int) -> Tensor:
        """``[count]``: for each of a slot's rows another one, the next in an order drawn from the seed."""
        order = torch.randperm(count, generator=torch.Generator().manual_seed(self.seed + slot))
        donors = torch.empty(count, dtype=torch.long)
        donors[order] = order.roll(-1)
        return donors

    def ranks_of(self, found: Tensor, field: str, slot: int) -> tuple[Tensor, Tensor, Tensor]:
        """The problems ``[m]`` with a label that has a token, its rank in each ``[m]``, and that of another problem's label.

        ``found [n, values]`` are the ranks of all values in what is said of this slot's rows.
        """
        step = self.own[slot]
        index = self.rows(slot)
        labels = self.y.labels[field][index, step]
        known = ((labels >= 0) & found.gather(1, labels.clamp(min=0)[:, None])[:, 0].isfinite()).nonzero()[:, 0]
        donors = known[self.donors(len(known), slot)]
        own, others = (found[known].gather(1, labels[each][:, None])[:, 0].double() for each in (known, donors))
        return index[known], own, others

    def marks(self, found: Tensor, field: str, slot: int) -> Tensor:
        """``[5, problems]``: which are asked; hit@1 and reciprocal rank of their labels; and both of another problem's label."""
        index, own, others = self.ranks_of(found, field, slot)
        marks = torch.zeros(5, self.num_problems, dtype=torch.float64)
        marks[:, index] = torch.stack([torch.ones_like(own), (own <= 1).double(), 1 / own, (others <= 1).double(), 1 / others])
        return marks


def added_up(ask: Asked, seen: dict[int, Seen], fields: Sequence[str]) -> dict[str, Tensor]:
    """For each field the marks ``[5, problems]`` of all slots together."""
    none = torch.zeros(5, ask.num_problems, dtype=torch.float64)
    return {field: sum((ask.marks(each.ranks[field], field, slot) for slot, each in seen.items()), none) for field in fields}
