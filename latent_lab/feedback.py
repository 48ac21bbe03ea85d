"""From a state to the thought that is fed into a slot: the norm it is taken before, and what it passes through."""

from torch import Tensor, nn
from transformers import PreTrainedModel


class UnsupportedModel(ValueError):
    """A backbone that the latent loop cannot drive; the message says why."""


class Feedback(nn.Module):
    """What a state passes through on its way into a slot: nothing, a linear map that starts as the identity, or CODI's MLP."""

    def __init__(self, projection: str, width: int) -> None:
        super().__init__()
        self.projection: nn.Module = nn.Identity()
        if projection == "linear":
            self.projection = nn.Linear(width, width)
            nn.init.eye_(self.projection.weight)
            nn.init.zeros_(self.projection.bias)
        elif projection == "mlp":  # CODI (arXiv 2502.21074), section 3
            self.projection = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.LayerNorm(width))

    def forward(self, state: Tensor) -> Tensor:
        """``[..., width]`` to ``[..., width]``."""
        return self.projection(state)

    def nothing(self) -> Tensor | float:
        """Zero, with a gradient for every weight: several processes must all use them, also for a batch without slots."""
        return sum((p.sum() * 0.0 for p in self.parameters()), 0.0)


def final_norm(model: PreTrainedModel) -> nn.Module:
    """The norm after the last layer."""
    norms = [module for module in model.base_model.children() if "norm" in type(module).__name__.lower()]
    if not norms:
        raise UnsupportedModel(f"{type(model).__name__} has no final norm that could be found; allowed: feedback=after_norm")
    return norms[-1]


def blocks_of(model: PreTrainedModel) -> nn.ModuleList:
    """The decoder blocks, first to last."""
    count = model.config.num_hidden_layers
    found = [m for m in model.base_model.children() if isinstance(m, nn.ModuleList) and len(m) == count]
    if len(found) != 1:
        raise UnsupportedModel(f"{type(model).__name__}: its {count} blocks could not be found, so their states cannot be edited")
    return found[0]


def scaled(thought: Tensor, like: Tensor) -> Tensor:
    """A thought ``[..., width]`` brought to the mean length of the rows of ``like``."""
    length = like.detach().float().norm(dim=-1).mean()
    return thought * (length / thought.norm(dim=-1, keepdim=True).clamp(min=1e-6))
