"""Training the autoencoder of :mod:`latent_lab.plans.vae`: seconds on a CPU."""

import random
from collections.abc import Sequence as Seq

import numpy as np
import torch
from torch import Tensor, nn

from latent_lab.plans.kmeans import started
from latent_lab.plans.vae import SoftVAE

HIDDEN, CODE = 512, 64
"""Width of the three-layer networks and of a code (published)."""
BATCH = 32
"""Problems whose steps are in one batch."""
COMMIT, DECAY = 0.25, 0.99
"""Of hard codes: weight of the distance from a vector to its code, and how much of a code stays at each batch (published)."""


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


class HardQuantised(nn.Module):
    """Vector -> vector ``[CODE]`` -> the nearest code -> vector. Codes are running means of what they are nearest to.

    Differs from paper: codes begin at vectors of the first batch that lie far apart (k-means++); drawn at random, most would
    never be the nearest to anything.
    """

    codes: Tensor
    counts: Tensor

    def __init__(self, width: int, kinds: int, seed: int) -> None:
        super().__init__()
        self.encoder, self.decoder = layers(width, CODE), layers(CODE, width)
        self.kinds, self.rng = kinds, np.random.default_rng(seed)
        self.register_buffer("codes", torch.zeros(0, CODE))
        self.register_buffer("counts", torch.zeros(kinds))

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``[n, width]`` to copies, encoded vectors ``[n, CODE]``, and the number of each one's code ``[n]``."""
        encoded = self.encoder(points)
        if not len(self.codes):
            self.codes = torch.from_numpy(started(encoded.detach().numpy(), self.kinds, self.rng))
        chosen = torch.cdist(encoded.detach(), self.codes).argmin(dim=1)
        return self.decoder(encoded + (self.codes[chosen] - encoded).detach()), encoded, chosen

    def loss(self, points: Tensor) -> Tensor:
        """Half the squared error and ``COMMIT`` times the squared distance to the code, both summed; a mean over steps."""
        made, encoded, chosen = self(points)
        apart = ((encoded - self.codes[chosen]) ** 2).sum()
        return (0.5 * ((made - points) ** 2).sum() + COMMIT * apart) / len(points)

    @torch.no_grad()
    def move(self, points: Tensor) -> None:
        """Let codes follow what is nearest to them."""
        _, encoded, chosen = self(points)
        member = nn.functional.one_hot(chosen, self.kinds).float()
        sums = DECAY * self.counts[:, None] * self.codes + (1 - DECAY) * member.T @ encoded
        self.counts = DECAY * self.counts + (1 - DECAY) * member.sum(dim=0)
        self.codes = torch.where(self.counts[:, None] > 0, sums / self.counts[:, None].clamp(min=1e-12), self.codes)


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
    """Train on scaled vectors, ``[steps, width]`` for each problem, and return the encoder's weights by name (and hard codes).

    Draws from generators of its own, so that the training that follows is the same with and without it.
    """
    some = [torch.from_numpy(each) for each in vectors if len(each)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        width = some[0].shape[1]
        model = HardQuantised(width, plan.clusters, plan.seed) if plan.form == "hard" else SoftQuantised(width, plan.clusters)
        optimizer = torch.optim.Adam(model.parameters(), lr=plan.lr)
        rng = random.Random(plan.seed)
        for _ in range(plan.epochs):
            order = list(range(len(some)))
            rng.shuffle(order)
            for start in range(0, len(order), BATCH):
                part = [some[i] for i in order[start : start + BATCH]]
                owners = torch.cat([torch.full((len(each),), number) for number, each in enumerate(part)])
                points, noise = torch.cat(part), torch.randn(len(owners), plan.clusters)
                optimizer.zero_grad()
                loss = model.loss(points) if isinstance(model, HardQuantised) else loss_of(plan, model, points, owners, noise)
                loss.backward()
                optimizer.step()
                if isinstance(model, HardQuantised):
                    model.move(points)
    linear = [module for module in model.encoder if isinstance(module, nn.Linear)]
    codes = {"codes": model.codes.numpy()} if isinstance(model, HardQuantised) else {}
    return codes | {
        f"encoder{i}.{name}": parameter.detach().numpy()
        for i, module in enumerate(linear)
        for name, parameter in module.named_parameters()
    }
