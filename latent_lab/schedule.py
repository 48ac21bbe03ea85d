"""The course of a training in time: its phases, and the learning rate. Imports no torch."""

import math
from dataclasses import dataclass

from latent_lab.config import Optim


@dataclass(frozen=True)
class Phase:
    """A stretch of training on one layout of the problems."""

    stage: int
    epochs: float
    """Passes over the training problems; a fraction ends the last pass early."""
    fresh_optimizer: bool = False
    """Begin with an optimiser that has no memory."""
    fresh_each_epoch: bool = False
    """Do so at each of its epochs."""
    is_validated: bool = True
    """Whether its end, and its beginning where that is asked for, is worth a validation."""

    def num_steps(self, num_batches: int) -> int:
        """Optimiser steps, with ``num_batches`` in a full epoch; at least one unless ``epochs`` is 0."""
        return max(round(self.epochs * num_batches), int(self.epochs > 0))


def rate(step: int, total: int, optim: Optim) -> float:
    """Share of the peak learning rate at optimiser step ``step`` (from 0) of ``total``."""
    if step < optim.warmup:
        return (step + 1) / optim.warmup
    if optim.schedule == "constant":
        return 1.0
    done = (step - optim.warmup) / max(total - optim.warmup, 1)
    left = 1 - done if optim.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return optim.final + (1 - optim.final) * left
