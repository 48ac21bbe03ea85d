"""Linear discriminant analysis with a shared, shrunken covariance: probes in closed form that give probabilities.

For value v of a field, log p(v | x) = log pi_v + (x . w_v - m_v . w_v / 2) / T + const, with w_v = S^-1 m_v, m_v the mean of
the vectors with that value, S = (1 - s) W + s (tr W / width) I and W the covariance within values. The shrinkage s and the
temperature T are those with the least cross-entropy on a part of the *training* problems that the fit left out; then all are
fitted with them. A large T falls back on the shares pi, so that a probe of vectors that hold nothing costs no bits.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

SHRINKAGES = (1e-3, 1e-2, 0.1, 0.6)
TEMPERATURES = (1.0, 2.0, 8.0, 256.0)
UNSURE = 1e-3
"""Share of the prior that is mixed into every prediction: no value is ever impossible, however sure the probe is."""
JITTER = 1e-6
"""What is added to every variance, as a share of the mean variance."""
FEWEST = 20
"""Training steps with a label that a probe is fitted on, at least."""
FEWEST_HELD_OUT = 10
"""Labels left out of the fit that the choice of shrinkage needs; with fewer the defaults are taken."""
DEFAULTS = (0.1, 1.0)


@dataclass(frozen=True)
class Constant:
    """Where there is nothing to probe: a single value, or too few labels. It answers with the training shares."""

    why: str
    log_prior: Tensor
    """``[values]``: smoothed shares among training steps."""
    value: int | None = None
    """The one value there is."""

    def log_probabilities(self, vectors: Tensor) -> Tensor:
        """``[n, values]``."""
        return self.log_prior.expand(len(vectors), -1)


@dataclass(frozen=True)
class Discriminant:
    """A fitted probe of one field."""

    weight: Tensor
    """``[values, width]``."""
    bias: Tensor
    """``[values]``."""
    log_share: Tensor
    """``[values]``: shares of the values in training; minus infinity where there were none."""
    log_prior: Tensor
    """``[values]``: the same, smoothed (one more of each): the prediction without any vector."""
    shrinkage: float
    temperature: float
    held_out: tuple[int, float, float]
    """Of the training labels left out of the fit that chose the shrinkage: their number, how many of them that fit got right,
    and how many the most frequent value gets right (both as shares)."""

    def log_probabilities(self, vectors: Tensor) -> Tensor:
        """``[n, values]``, natural logarithms, of standardised vectors ``[n, width]``."""
        evidence = vectors.to(self.weight.dtype) @ self.weight.T + self.bias
        return mixed(evidence, self.log_share, self.log_prior, self.temperature)

    @property
    def held_out_gain(self) -> float:
        """Share of the room above the most frequent value that was won on the labels left out; 0 where there is no room."""
        _, right, floor = self.held_out
        return (right - floor) / (1 - floor) if floor < 1 else 0.0


Probe = Discriminant | Constant


def mixed(evidence: Tensor, log_share: Tensor, log_prior: Tensor, temperature: float) -> Tensor:
    """``[n, values]``: log-probabilities from log-likelihoods, with a little of the prior."""
    return mix(torch.log_softmax(log_share + evidence / temperature, dim=-1), log_prior)


def mix(sure: Tensor, log_prior: Tensor) -> Tensor:
    """Log-probabilities with a little of the prior's."""
    return torch.logaddexp(sure + math.log1p(-UNSURE), log_prior + math.log(UNSURE))


@dataclass(frozen=True)
class Moments:
    """What a fit needs to know of vectors and labels."""

    counts: Tensor
    """``[values]``."""
    sums: Tensor
    """``[values, width]``."""
    gram: Tensor
    """``[width, width]``: sum of the outer products."""

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.counts + other.counts, self.sums + other.sums, self.gram + other.gram)

    @property
    def means(self) -> Tensor:
        """``[values, width]``: zero for a value without vectors."""
        return self.sums / self.counts.clamp(min=1)[:, None]

    @property
    def within(self) -> Tensor:
        """``[width, width]``: covariance within values."""
        between = self.means.T @ self.sums
        degrees = int(self.counts.sum()) - int((self.counts > 0).sum())
        return (self.gram - (between + between.T) / 2) / max(degrees, 1)

    @property
    def log_share(self) -> Tensor:
        """``[values]``."""
        return (self.counts / self.counts.sum()).log()

    @property
    def log_prior(self) -> Tensor:
        """``[values]``, smoothed."""
        return ((self.counts + 1) / (self.counts.sum() + len(self.counts))).log()

    def solved(self, shrinkages: tuple[float, ...]) -> tuple[Tensor, Tensor]:
        """``[shrinkages, values, width]`` and ``[shrinkages, values]``: weights and biases."""
        within, means = self.within, self.means
        size, total = within.diagonal().mean(), self.gram.diagonal().mean() / self.counts.sum()
        s = torch.tensor(shrinkages, dtype=within.dtype)[:, None, None]
        least = JITTER * total.clamp(min=1e-6)  # where values leave no variance, rounding would leave a negative one
        shrunk = (1 - s) * within + (s * size.clamp(min=0) + least) * torch.eye(len(within), dtype=within.dtype)
        weight = torch.cholesky_solve(means.T.expand(len(s), -1, -1), torch.linalg.cholesky(shrunk)).mT
        return weight, -0.5 * (weight * means).sum(-1)


class Grams:
    """Sums of outer products of some rows of the same vectors: fields with labels on the same rows share them."""

    def __init__(self, vectors: Tensor) -> None:
        self.vectors = vectors.float()
        self.known: dict[bytes, tuple[Tensor, Tensor]] = {}

    def moments(self, labels: Tensor, rows: Tensor, num_values: int) -> Moments:
        """Of the rows ``[n]`` (bool), by their labels ``[n]``."""
        key = rows.numpy().tobytes()
        if key not in self.known:
            vectors = self.vectors[rows].double()
            self.known[key] = (vectors, vectors.T @ vectors)
        vectors, gram = self.known[key]
        values = labels[rows]
        sums = torch.zeros(num_values, vectors.shape[1], dtype=torch.float64).index_add_(0, values, vectors)
        return Moments(values.bincount(minlength=num_values).double(), sums, gram)


def fit_all(vectors: Tensor, labels: Mapping[str, Tensor], sizes: Mapping[str, int], held_out: Tensor) -> dict[str, Probe]:
    """Fit a probe for every set of labels of the same vectors.

    Args:
        vectors: ``[n, width]``, standardised.
        labels: for each name ``[n]``, -1 where there is none.
        sizes: for each name how many values there are.
        held_out: ``[n]``, bool: rows left out of the fit that chooses the shrinkage.
    """
    grams = Grams(vectors)
    return {name: fit(grams, y, sizes[name], held_out) for name, y in labels.items()}


def fit(grams: Grams, labels: Tensor, num_values: int, held_out: Tensor) -> Probe:
    """Fit one probe; :class:`Constant` where the labels do not vary or are too few."""
    has_label = labels >= 0
    total = int(has_label.sum())
    values = labels[has_label].unique()
    if total < FEWEST or len(values) < 2:
        counts = labels[has_label].bincount(minlength=num_values).double()
        log_prior = ((counts + 1) / (counts.sum() + num_values)).log()
        if len(values) == 1:
            return Constant(f"all {total} training steps say the same", log_prior, int(values[0]))
        return Constant(f"{total} training steps with a label; {FEWEST} are needed", log_prior)
    seen = grams.moments(labels, has_label & ~held_out, num_values)
    left = grams.moments(labels, has_label & held_out, num_values)
    rows = has_label & held_out
    shrinkage, temperature, right = chosen(seen, grams.vectors[rows], labels[rows])
    floor = float((labels[rows] == seen.counts.argmax()).double().mean()) if len(labels[rows]) else 0.0
    whole = seen + left
    weight, bias = whole.solved((shrinkage,))
    held = (int(rows.sum()), right, floor)
    return Discriminant(weight[0], bias[0], whole.log_share, whole.log_prior, shrinkage, temperature, held)


def chosen(seen: Moments, vectors: Tensor, labels: Tensor) -> tuple[float, float, float]:
    """Shrinkage and temperature with the least cross-entropy on rows not in ``seen``, and the share it gets right there."""
    if len(labels) < FEWEST_HELD_OUT or int((seen.counts > 0).sum()) < 2:
        return *DEFAULTS, 0.0
    weights, biases = seen.solved(SHRINKAGES)
    shares, prior = seen.log_share, seen.log_prior
    losses, place = {}, labels[:, None]
    for i in range(len(SHRINKAGES)):
        evidence = vectors.double() @ weights[i].T + biases[i]
        for temperature in TEMPERATURES:
            sure = torch.log_softmax(shares + evidence / temperature, dim=-1).gather(1, place)[:, 0]
            losses[i, temperature] = float(-mix(sure, prior[labels]).mean())
    best, temperature = min(losses, key=lambda each: losses[each])
    log_p = mixed(vectors.double() @ weights[best].T + biases[best], shares, prior, temperature)
    return SHRINKAGES[best], temperature, float((log_p.argmax(1) == labels).double().mean())
