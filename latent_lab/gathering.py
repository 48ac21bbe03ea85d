"""One gradient a matrix, however many passes of the latent loop used it.

Backward, each pass makes the gradient of every matrix anew and adds it to the last one: a one-token pass of eight rows computes
with 8 vectors and moves as many numbers as the model has weights, three times. Here a pass keeps the vectors such a product is
made of, and one product serves all passes. Only the order in which floats are added differs.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

from latent_lab.compiling import is_compiled

LARGE = 2**19
"""Entries (2 MB) from which a matrix gathers: smaller ones stay in a processor's cache, and passing through Python costs more
than it saves."""
MOST_KEPT = 256
"""Vectors kept for a matrix before they are multiplied: a wide pass is by itself as cheap as it gets, and would hold memory."""


def gathering(model: nn.Module, passes: int) -> AbstractContextManager[object]:
    """What the passes of a rollout are to run in: a :class:`Gathering` where one pays, on a CPU (not measured elsewhere).

    Where passes of one token are compiled there are two others at most, and a graph must not be made of what gathers.
    """
    pays = passes > 2 and not is_compiled(model) and torch.is_grad_enabled() and any(_gathers(p) for p in model.parameters())
    return Gathering() if pays else nullcontext()


def _gathers(weight: Tensor) -> bool:
    """Whether this is a large matrix in training on a CPU, and products are not made in another type (autocast)."""
    is_large = weight.dim() == 2 and weight.numel() >= LARGE and weight.device.type == "cpu"
    return is_large and weight.is_leaf and weight.requires_grad and not torch.is_autocast_enabled("cpu")


class Gathering(TorchFunctionMode):
    """A context in which the products of ``nn.Linear`` and GPT-2's ``Conv1D`` gather the gradients of their weights."""

    def __init__(self) -> None:
        super().__init__()
        self._sums: dict[Tensor, tuple[Tensor, GradientSum]] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a function of torch as it is, or its product with a matrix that is learned."""
        if func is linear and not kwargs and _gathers(args[1]):
            x, weight, bias = (*args, None)[:3]
            return Product.apply(x, *self._sum(weight), bias, True)
        if func is torch.addmm and not kwargs and _gathers(args[2]) and args[0].dim() == 1:
            bias, x, weight = args
            return Product.apply(x, *self._sum(weight), bias, False)
        return func(*args, **(kwargs or {}))

    def _sum(self, weight: Tensor) -> "tuple[Tensor, GradientSum]":
        if weight not in self._sums:
            gradient = GradientSum()
            self._sums[weight] = (Summed.apply(weight, gradient), gradient)
        return self._sums[weight]


class GradientSum:
    """The gradient of one matrix ``[out, in]``, growing while the passes are gone through backward."""

    def __init__(self) -> None:
        self._total: Tensor | None = None
        self._kept: list[tuple[Tensor, Tensor]] = []
        self._count = 0

    def add(self, left: Tensor, right: Tensor) -> None:
        """Add ``left.T @ right``, with ``left [N, rows of the matrix]`` and ``right [N, columns]``."""
        self._kept.append((left, right))
        self._count += len(left)
        if self._count > MOST_KEPT:
            self._multiply()

    def taken(self) -> Tensor | None:
        """The whole; the sum begins anew."""
        self._multiply()
        total, self._total = self._total, None
        return total

    def _multiply(self) -> None:
        if self._kept:
            left, right = (torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*self._kept, strict=True))
            self._total = left.T @ right if self._total is None else self._total.addmm_(left.T, right)
        self._kept, self._count = [], 0


class Summed(torch.autograd.Function):
    """The matrix itself; backward, reached when every product has been, its gradient is the sum."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, gradient: GradientSum) -> Tensor:
        """Return the weight."""
        ctx.gradient = gradient
        ctx.set_materialize_grads(False)
        return weight.view_as(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor | None) -> tuple[Tensor | None, None]:
        """Return what was summed; products hand on no gradient of their own."""
        return ctx.gradient.taken(), None


class Product(torch.autograd.Function):
    """``x @ weight.T + bias`` of ``nn.Linear``, or without the transposition."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, gradient: GradientSum, bias: Tensor | None, is_transposed: bool) -> Tensor:
        """Multiply; ``x [..., in]``."""
        ctx.save_for_backward(x, weight)
        ctx.gradient, ctx.is_transposed, ctx.has_bias = gradient, is_transposed, bias is not None
        if is_transposed:
            return linear(x, weight, bias)
        return torch.addmm(bias, x, weight) if bias is not None else x @ weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, None, None, Tensor | None, None]:
        """Hand the gradients of ``x`` and bias on, and keep the weight's for the sum."""
        x, weight = ctx.saved_tensors
        flat, x_flat = given.reshape(-1, given.shape[-1]), x.reshape(-1, x.shape[-1])
        ctx.gradient.add(*((flat, x_flat) if ctx.is_transposed else (x_flat, flat)))
        x_gradient = given @ (weight if ctx.is_transposed else weight.T) if ctx.needs_input_grad[0] else None
        bias_gradient = flat.sum(0) if ctx.has_bias and ctx.needs_input_grad[3] else None
        return x_gradient, None, None, bias_gradient, None
