"""Training the autoencoder of :mod:`latent_lab.plans.vae`: seconds on a CPU."""

import random
from collections.abc import Sequence as Seq

import numpy as np
import torch
from torch import Tensor, nn

from latent_lab.plans.vae import SoftVAE

HIDDEN, CODE = 512, 64
"""Width of the three-layer networks and of a code (published)."""
BATCH = 32
"""Problems whose steps are in one batch."""


class SoftQuantised(nn.Module):
    """Vector -> mean and log-variance over kinds -> ``W softmax(z)`` -> vector."""

    def __init__(self, width: int, kinds: int) -> None:
        super().__init__()
        self.encoder = layers(width, 2 * kinds)
        self.codes = nn.Linear(kinds, CODE, bias=False)
        self.decoder = layers(CODE, width)

    def forward(self, points: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``[n, width]`` and standard normal noise ``[n, kinds]`` to copies, codes ``[n, CODE]``, means and log-variances."""
        mean, log_variance = self.encoder(points).chunk(2, dim=1)
        codes = self.codes((mean + noise * (log_variance / 2).exp()).softmax(dim=1))
        return self.decoder(codes), codes, mean, log_variance


def layers(before: int, after: int) -> nn.Sequential:
    """Three linear maps with ReLU between them."""
    return nn.Sequential(nn.Linear(before, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, after))


def loss_of(plan: SoftVAE, model: SoftQuantised, points: Tensor, owners: Tensor, noise: Tensor) -> Tensor:
    """The loss of steps ``[n, width]``, those of one problem (``owners``, ``[n]``) in their order.

    Half the squared error summed over coordinates, plus ``kl`` times the divergence, each a mean over steps. ``contrastive``
    takes off ``apart`` times the mean squared difference between a code and each neighbour's, which is not moved by it.
    """
    made, codes, mean, log_variance = model(points, noise)
    follows = owners[1:] == owners[:-1]
    if plan.form == "next_step":
        error = (made[:-1] - points[1:])[follows]
        count = int(follows.sum())
    else:
        error, count = made - points, len(points)
    divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum() / len(points)
    loss = 0.5 * (error**2).sum() / max(count, 1) + plan.kl * divergence
    if plan.form == "contrastive" and bool(follows.any()):
        before, after = codes[:-1][follows], codes[1:][follows]
        loss = loss - plan.apart * (((before - after.detach()) ** 2).mean() + ((after - before.detach()) ** 2).mean())
    return loss


def encoder_of(plan: SoftVAE, vectors: Seq[np.ndarray]) -> dict[str, np.ndarray]:
    """Train on scaled vectors, ``[steps, width]`` for each problem, and return the encoder's weights by name.

    Draws from generators of its own, so that the training that follows is the same with and without it.
    """
    some = [torch.from_numpy(each) for each in vectors if len(each)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        model = SoftQuantised(some[0].shape[1], plan.clusters)
        optimizer = torch.optim.Adam(model.parameters(), lr=plan.lr)
        rng = random.Random(plan.seed)
        for _ in range(plan.epochs):
            order = list(range(len(some)))
            rng.shuffle(order)
            for start in range(0, len(order), BATCH):
                part = [some[i] for i in order[start : start + BATCH]]
                owners = torch.cat([torch.full((len(each),), number) for number, each in enumerate(part)])
                noise = torch.randn(len(owners), plan.clusters)
                optimizer.zero_grad()
                loss_of(plan, model, torch.cat(part), owners, noise).backward()
                optimizer.step()
    linear = [module for module in model.encoder if isinstance(module, nn.Linear)]
    return {
        f"encoder{i}.{name}": parameter.detach().numpy()
        for i, module in enumerate(linear)
        for name, parameter in module.named_parameters()
    }
