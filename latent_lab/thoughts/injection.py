"""Put vectors into a language model's residual stream, for as long as a ``with`` block lasts.

Norm-matched addition (activation oracles, arXiv 2512.15674): ``h' = h + scale * |h| * v / |v|`` at chosen places, ``|h|`` without
gradient; or replacement (patchscopes, arXiv 2401.06102): ``h' = v``. Hooks act on a pass as wide as the prompt alone, so tokens
decoded after it are computed as they always are.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from latent_lab.feedback import blocks_of

SMALL = 1e-9


class InjectionError(ValueError):
    """A layer that the model does not have; the message says which there are."""


@dataclass(frozen=True)
class Places:
    """Where vectors go in a batch of prompts: entry i belongs to token ``columns[i]`` of row ``rows[i]``."""

    rows: Tensor
    """``[m]``."""
    columns: Tensor
    """``[m]``."""
    vectors: Tensor
    """``[m, width]``."""
    length: int
    """Tokens of the prompts, padding included; passes of another length are left alone."""


def added(hidden: Tensor, places: Places, scale: float) -> Tensor:
    """``[batch, length, width]`` with the vectors added at their places; a zero vector adds nothing."""
    vectors = places.vectors.to(hidden.dtype)
    unit = vectors / vectors.norm(dim=-1, keepdim=True).clamp(min=SMALL)
    length = hidden[places.rows, places.columns].detach().norm(dim=-1, keepdim=True)
    return hidden.index_put((places.rows, places.columns), scale * length * unit, accumulate=True)


def replaced(hidden: Tensor, places: Places) -> Tensor:
    """``[batch, length, width]`` with the vectors, as they are, in place of what stood at their places."""
    return hidden.index_put((places.rows, places.columns), places.vectors.to(hidden.dtype))


@contextmanager
def injected(
    model: Any, layers: Sequence[int], places: Places | None, scale: float = 1.0, *, replace: bool = False
) -> Iterator[None]:
    """Add vectors in every pass over the prompts inside the block: 0 at the input embeddings, n after block n.

    ``replace`` puts them in place of the states instead, whatever the ``scale``. ``places=None`` injects nothing. The hooks are
    gone after the block, whatever happens in it. Raises :class:`InjectionError` for layers that the model does not have.
    """
    if places is None or not len(places.rows):
        yield
        return
    known = [model.get_input_embeddings(), *blocks_of(model)]
    if odd := [layer for layer in layers if not 0 <= layer < len(known)]:
        raise InjectionError(
            f"inject_at={odd[0]}: allowed are 0 (the input embeddings) to {len(known) - 1} (after the last block)"
        )

    def hook(module: nn.Module, given: object, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        if hidden.shape[1] != places.length:
            return None
        changed = replaced(hidden, places) if replace else added(hidden, places, scale)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handles = []
    try:
        for layer in layers:
            handles.append(known[layer].register_forward_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()


class Adapter(nn.Module):
    """What thoughts pass through before they are injected: see ``OracleOptions.adapter``."""

    mean: Tensor
    matrix: Tensor

    def __init__(self, kind: str, width: int, into: int) -> None:
        super().__init__()
        if kind != "learned" and width != into:
            raise InjectionError(f"adapter={kind}: thoughts are {width} wide and the oracle is {into}; allowed: learned")
        self.kind = kind
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("matrix", torch.eye(width) if kind == "whitened" else torch.zeros(0))
        self.map = nn.Linear(width, into) if kind == "learned" else None
        if self.map is not None and width == into:
            nn.init.eye_(self.map.weight)
            nn.init.zeros_(self.map.bias)

    def fit(self, thoughts: Tensor) -> None:
        """Take mean and covariance from training thoughts ``[n, width]`` (ZCA, eigenvalues raised by 1% of their mean)."""
        thoughts = thoughts.to(self.mean)
        if self.kind in ("centred", "whitened"):
            self.mean.copy_(thoughts.mean(0))
        if self.kind == "whitened":
            values, vectors = torch.linalg.eigh(torch.cov((thoughts - self.mean).T.double()))
            raised = values.clamp(min=0) + 0.01 * values.mean()
            self.matrix.copy_((vectors * raised.rsqrt()) @ vectors.T)

    def forward(self, thoughts: Tensor) -> Tensor:
        """``[..., width]`` to ``[..., width of the oracle]``."""
        moved = thoughts.to(self.mean) - self.mean
        if self.kind == "whitened":
            moved = moved @ self.matrix
        return moved if self.map is None else self.map(moved)
