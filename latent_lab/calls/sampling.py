"""Sampling in which what a row draws depends on its own seed alone, never on the other rows of its batch."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor


class Drawn(LogitsProcessor):
    """Makes greedy decoding a sample at a temperature.

    The largest of ``logits / temperature`` plus Gumbel noise is a draw from their softmax; each row has a generator of its own.
    """

    def __init__(self, seeds: Sequence[int], temperature: float) -> None:
        self.temperature = temperature
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone, each with its own generator."""
        self.generators = [self.generators[row] for row in rows]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Add each row's next noise to its scores, both ``[batch, vocabulary]``."""
        width = scores.shape[-1]
        drawn = torch.stack([torch.empty(width).exponential_(generator=each) for each in self.generators])
        return scores.float() / self.temperature - drawn.clamp_min(1e-30).log().to(scores.device)
