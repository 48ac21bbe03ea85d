"""Steps by the code of a small autoencoder, soft ("SQ-VAE" of arXiv 2310.05707, section 3) or hard. Imports no torch."""

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import TYPE_CHECKING

from latent_lab.plans.embedded import Embedded

if TYPE_CHECKING:
    import numpy as np

FORMS = ("plain", "contrastive", "next_step", "hard")
ONLY_IN = {"kl": FORMS[:3], "apart": ("contrastive",)}
"""The forms that have a use for a setting."""


@dataclass
class SoftVAE(Embedded):
    """The likeliest of ``clusters`` codes for a step's vector.

    Differs from paper: a batch holds the steps of several problems, not of one, and the learning rate is larger to match.
    """

    form: str = "plain"
    """``plain``; ``contrastive``: neighbouring steps are pushed to codes apart; ``next_step``: a step's code must tell of the
    vector of the step after it; ``hard``: a step's code is the nearest of ``clusters`` (VQ-VAE, arXiv 1711.00937)."""
    epochs: int = 10
    """Passes over the training problems."""
    lr: float = 1e-3
    """Learning rate (Adam)."""
    kl: float = 0.1
    """Weight of the divergence from the standard normal distribution (published)."""
    apart: float = 0.1
    """For ``contrastive``: weight of the distance between neighbours' codes (published)."""

    name = "vae"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form not in FORMS:
            raise ValueError(f"form={self.form}: allowed are {', '.join(FORMS)}")
        if self.epochs < 1:
            raise ValueError(f"epochs={self.epochs}: allowed are 1 and more")
        for name in ("kl", "apart"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: allowed are weights of 0 and more")
            if self.form not in ONLY_IN[name] and getattr(self, name) != getattr(type(self), name):
                raise ValueError(f"{name}={getattr(self, name)}: form={self.form} has no such weight; allowed: leave it out")
        if not self.lr > 0:
            raise ValueError(f"lr={self.lr}: allowed are numbers above 0")

    def divide(self, vectors: "Seq[np.ndarray]") -> "dict[str, np.ndarray]":
        """See :class:`Embedded`: the weights of the encoder, and codes where they are hard; all that labels need."""
        from latent_lab.plans.vae_training import encoder_of

        return encoder_of(self, vectors)

    def nearest(self, points: "np.ndarray") -> "np.ndarray":
        """See :class:`Embedded`; the nearest code, or the largest mean, whatever the noise in training."""
        import numpy as np

        from latent_lab.plans.kmeans import assigned

        hidden = points
        for layer in range(3):
            hidden = hidden @ self.arrays[f"encoder{layer}.weight"].T + self.arrays[f"encoder{layer}.bias"]
            hidden = np.maximum(hidden, 0) if layer < 2 else hidden
        if self.form == "hard":
            return assigned(hidden, self.arrays["codes"], np.zeros(self.clusters, dtype=np.float32))
        return hidden[:, : self.clusters].argmax(axis=1)
