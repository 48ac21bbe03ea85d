"""Linear erasure in closed form (LEACE; Belrose et al. 2023, arXiv 2306.03819, theorem 4.3).

``r(x) = x - W^+ P W (x - E x)``: W whitens x, and P projects onto what is then correlated with the labels. Afterwards every label
has the same mean, so that no linear reader does better than one that never sees x; of all affine maps that reach this, it moves x
least.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

SMALL = 1e-6
"""Directions with less than this share of the largest variance, or correlation, are taken for none."""


@dataclass(frozen=True)
class Eraser:
    """What takes out of vectors all that tells a label linearly."""

    centre: Tensor
    """``[width]``."""
    give: Tensor
    """``[width, rank]``."""
    take: Tensor
    """``[rank, width]``."""

    @property
    def rank(self) -> int:
        """Directions taken out: at most one less than there are labels."""
        return self.take.shape[0]

    def __call__(self, vectors: Tensor) -> Tensor:
        """``[..., width]`` after erasure."""
        centre, give, take = (part.to(vectors) for part in (self.centre, self.give, self.take))
        return vectors - (vectors - centre) @ take.T @ give.T

    def change(self, rows: slice, slot: int, thoughts: Tensor) -> Tensor:
        """The same as a change of thoughts ``[batch, width]`` that are fed in, whatever their rows and slot."""
        return self(thoughts)


def leace(vectors: Tensor, labels: Tensor, generator: torch.Generator | None = None) -> Eraser:
    """Fit to ``vectors [n, width]`` and ``labels [n]`` (numbers from 0).

    With a ``generator`` as many directions are drawn at random instead, in the same whitened space: the control.
    """
    x = vectors.double()
    centre = x.mean(0)
    centred = x - centre
    sizes, basis = torch.linalg.eigh(centred.T @ centred / len(x))
    kept = sizes > SMALL * sizes.max()
    sizes, basis = sizes[kept].sqrt(), basis[:, kept]
    told = torch.nn.functional.one_hot(labels).double()
    correlated = (basis / sizes).T @ centred.T @ (told - told.mean(0)) / len(x)
    found, strengths, _ = torch.linalg.svd(correlated, full_matrices=False)
    rank = int((strengths > SMALL * strengths.sum()).sum())
    found = found[:, :rank]
    if generator is not None:
        found = torch.linalg.qr(torch.randn(len(sizes), rank, generator=generator, dtype=x.dtype)).Q
    return Eraser(centre, (basis * sizes) @ found, ((basis / sizes) @ found).T)
