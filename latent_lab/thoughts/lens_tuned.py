"""The tuned lens (arXiv 2303.08112): the logit lens after an affine map from a layer's states to what the last layer says.

The map is trained by the divergence of what it makes the head say from what the head says of the last layer's state of the same
slot: ``KL(last || mapped)``, in bits. Everything is fitted on training problems; a share of them is left out and says which map
is kept.

Differs from paper: training starts at the ridge regression onto the last layer's state, which is had in closed form, in place of
the identity; it is short; and the map leads past the final norm, where the last layer's states are stored.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latent_lab.reasoner import LatentReasoner
from latent_lab.thoughts.lens_kinds import ROWS, Scores, logit_lens
from latent_lab.thoughts.probe_exam import BIT, held_out, standard
from latent_lab.thoughts.probe_scores import Resampler, interval
from latent_lab.thoughts.store import ThoughtStore

RIDGE = 1e-3
"""Penalty of the regression, as a share of the variance of a standardised component."""
STEPS, RATE = 100, 3e-3
"""Steps of Adam on ``ROWS`` states each, and how far the first goes, as a share of the last layer's standard deviation; the rate
falls to 0 in a line."""

Map = tuple[Tensor, Tensor]
"""``[width, width]`` and ``[width]``: ``states @ weight + bias``."""


@dataclass(frozen=True)
class Tuned:
    """A tuned lens of one layer."""

    scores: Scores
    record: dict[str, Any]
    """What it costs on training problems left out, in bits a slot: see :func:`tuned_lens`."""


def affine_map(states: Tensor, wanted: Tensor) -> Map:
    """Ridge regression of ``wanted [n, width]`` on ``states [n, width]`` in closed form: ``[width, width]`` and ``[width]``."""
    mean, scale = standard(states)
    x = ((states - mean) / scale).double()
    target = wanted.mean(0).double()
    gram = x.T @ x + RIDGE * len(x) * torch.eye(x.shape[1], dtype=torch.float64)
    weight = torch.linalg.solve(gram, x.T @ (wanted.double() - target)) / scale.double()[:, None]
    return weight.float(), (target - mean.double() @ weight).float()


def divergence(wanted: Tensor, said: Tensor) -> Tensor:
    """``[n]``: ``KL(wanted || said)`` in bits of logits ``[n, vocabulary]``."""
    wanted, said = wanted.log_softmax(-1), said.log_softmax(-1)
    return (wanted.exp() * (wanted - said)).sum(-1) / BIT


def refined(head: Scores, start: Map, states: Tensor, wanted: Tensor, device: torch.device, seed: int) -> Map:
    """A map trained by the divergence from what ``head`` says of ``wanted [n, width]``, from ``start`` on.

    It is trained on standardised ``states [n, width]``, so that one step size suits all components; the same seed gives the same.
    """
    mean, scale = (each.to(device) for each in standard(states))
    known = scale.isfinite()
    weight = (start[0].to(device) * torch.where(known, scale, 0.0)[:, None]).requires_grad_()
    bias = (start[1].to(device) + mean @ start[0].to(device)).requires_grad_()
    optimizer = torch.optim.Adam([weight, bias], lr=RATE * float(wanted.std(0).mean()))
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, STEPS)
    for index in batches(len(states), seed):
        with torch.no_grad():
            target = head(wanted[index].to(device))
        with torch.enable_grad():
            loss = divergence(target, head((states[index].to(device) - mean) / scale @ weight + bias)).mean()
            weight.grad, bias.grad = torch.autograd.grad(loss, [weight, bias])
        optimizer.step()
        schedule.step()
    found = weight.detach() / scale[:, None]
    return found, bias.detach() - mean @ found


def batches(count: int, seed: int) -> Iterator[Tensor]:
    """``STEPS`` batches of up to ``ROWS`` of ``count`` states, drawn without repetition in a batch."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        yield torch.randperm(count, generator=generator)[:ROWS]


def tuned_lens(reasoner: LatentReasoner, train: ThoughtStore, layer: int, seed: int = 0) -> Tuned:
    """Logits of a layer's states after an affine map, fitted on all slots of a store that holds the last layer, too.

    StoreError where it does not. Four fifths of the problems fit the closed form and refine it; by the mean divergence on the
    rest, the best of ``closed_form``, ``refined`` and no map (``logit``) is ``kept``. Recorded beside it are all three in bits,
    and what refining ``saved`` ``{value, low, high}``. For the last layer it is the logit lens, which costs nothing.
    """
    last = reasoner.model.config.num_hidden_layers
    head = logit_lens(reasoner, last)
    out = held_out(len(train.rows), seed)
    there = torch.arange(train.layer(layer).shape[1]) < train.num_slots[:, None]
    record: dict[str, Any] = {"layer": layer, "n": int(there[out].sum()), "n_problems": int(out.sum())}
    if layer == last:
        return Tuned(head, {**record, "kept": "logit"})
    states, wanted, fitted = train.layer(layer), train.layer(last), there & ~out[:, None]
    closed = affine_map(states[fitted], wanted[fitted])
    maps = {"closed_form": closed, "refined": refined(head, closed, states[fitted], wanted[fitted], reasoner.device, seed)}
    lenses = {"logit": logit_lens(reasoner, layer)} | {name: mapped(head, each, reasoner.device) for name, each in maps.items()}
    left = there & out[:, None]
    costs = {name: torch.zeros(left.shape, dtype=torch.float64) for name in lenses}
    for name, lens in lenses.items():
        costs[name][left] = costs_of(lens, head, states[left], wanted[left], reasoner.device)
    resampler, counts = Resampler(int(out.sum()), seed), left[out].sum(1)
    drawn = {name: resampler.means(cost[out].sum(1), counts) for name, cost in costs.items()}
    bits = {name: float(each[0]) for name, each in drawn.items()}
    kept = min(bits, key=lambda name: round(bits[name], 4))  # of equals the simplest
    return Tuned(lenses[kept], {**record, **bits, "saved": interval(drawn["closed_form"] - drawn["refined"]), "kept": kept})


def mapped(head: Scores, found: Map, device: torch.device) -> Scores:
    """What the head says of states after a map."""
    weight, bias = (each.to(device) for each in found)
    return lambda states: head(states.float() @ weight + bias)


@torch.no_grad()
def costs_of(lens: Scores, head: Scores, states: Tensor, wanted: Tensor, device: torch.device) -> Tensor:
    """``[n]``: divergence in bits of what a lens says of ``states [n, width]`` from what the head says of ``wanted``."""
    parts = zip(states.split(ROWS), wanted.split(ROWS), strict=True)
    found = [divergence(head(y.to(device)), lens(x.to(device))).double().cpu() for x, y in parts]
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.float64)
