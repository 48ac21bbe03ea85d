"""latent_lab: train language models that think in continuous vectors, and grade them honestly.

The reasoner can be lifted into a notebook::

    from latent_lab import LatentReasoner, LatentTokens
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latent_lab.reasoner import LatentReasoner, LatentTokens

__version__ = "0.1.0"
__all__ = ["LatentReasoner", "LatentTokens"]


def __getattr__(name: str) -> Any:
    """Import torch only when the reasoner is asked for, so that ``--help`` and error messages stay fast."""
    if name in __all__:
        from latent_lab import reasoner

        return getattr(reasoner, name)
    raise AttributeError(f"module 'latent_lab' has no attribute {name!r}")
