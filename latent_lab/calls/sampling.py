"""Sampling in which what a row draws depends on its own seed alone, never on the other rows of its batch."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, TopKLogitsWarper, TopPLogitsWarper


class Drawn(LogitsProcessor):
    """Makes greedy decoding a sample, each row at its own temperature (0: that row stays greedy).

    The largest of ``logits / temperature`` plus Gumbel noise is a draw from their softmax; each row has a generator of its own.
    ``top_k`` leaves the likeliest so many to draw from, ``top_p`` the fewest likeliest of these that hold so much probability.
    """

    def __init__(
        self, seeds: Sequence[int], temperatures: Sequence[float], top_p: float | None = None, top_k: int | None = None
    ) -> None:
        self.temperatures = torch.tensor(temperatures)[:, None]
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.warpers: list[LogitsProcessor] = [TopKLogitsWarper(top_k)] if top_k is not None else []
        self.warpers += [TopPLogitsWarper(top_p)] if top_p is not None else []

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone, each with its own generator."""
        self.temperatures = self.temperatures[list(rows)]
        self.generators = [self.generators[row] for row in rows]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Add each row's next noise to its scores, both ``[batch, vocabulary]``."""
        width = scores.shape[-1]
        drawn = torch.stack([torch.empty(width).exponential_(generator=each) for each in self.generators])
        at = self.temperatures.to(scores.device)
        hot = scores.float() / at.where(at > 0, 1)
        for warper in self.warpers:
            hot = warper(input_ids, hot)
        return torch.where(at > 0, hot - drawn.clamp_min(1e-30).log().to(scores.device), scores.float())


def sampled(
    seeds: Sequence[int], temperatures: Sequence[float], top_p: float | None = None, top_k: int | None = None
) -> dict[str, Any]:
    """What of ``generate``'s options chance takes: none where all rows are greedy."""
    return {"logits_processor": [Drawn(seeds, temperatures, top_p, top_k)]} if any(temperatures) else {}
