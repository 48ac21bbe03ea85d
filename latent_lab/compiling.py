"""The one-token passes of the latent loop as one compiled graph each, where a GPU would wait for the launch of every operation.

A pass over one column is some hundred small operations. ``torch.compile`` fuses them; rows, columns before and masks are of any
size, so that a run needs a graph or two. All other passes, and everything that is not trained, run as they are.
"""

from functools import wraps
from types import MethodType
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel


def compile_columns(model: PreTrainedModel, backend: str = "inductor") -> None:
    """Make a model run a pass over one column of ``inputs_embeds`` compiled while it is trained; only its forward is replaced.

    Outputs and gradients are those of the plain model up to the order of additions; dropout draws other numbers. A pass that
    somebody listens to (a hook on any module, hidden states asked for) runs plain: a graph would not see who came after it.
    """
    body: Any = model.base_model
    plain = type(body).forward
    compiled = torch.compile(plain, dynamic=True, backend=backend)

    @wraps(plain)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return (compiled if _is_column(self, kwargs) else plain)(self, *args, **kwargs)

    body.forward = MethodType(forward, body)  # a bound method, so that a deep copy of the model binds to its own layers
    body.has_compiled_columns = True


def is_compiled(body: nn.Module) -> bool:
    """Whether :func:`compile_columns` was here."""
    return bool(getattr(body, "has_compiled_columns", False))


def _is_column(body: nn.Module, given: dict[str, Any]) -> bool:
    embeds = given.get("inputs_embeds")
    if embeds is None or embeds.shape[1] != 1 or not torch.is_grad_enabled() or given.get("output_hidden_states"):
        return False
    return not any(module._forward_hooks or module._forward_pre_hooks for module in body.modules())
