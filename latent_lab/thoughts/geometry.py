"""The geometry of thoughts: how long they are, how alike, in how many directions they vary, and how far from any word.

No label is asked for. Thoughts that all point one way (a large shared mean) look alike to a reader that measures length; see
``OracleOptions.adapter``.
"""

from typing import Any

import torch
from torch import Tensor

from latent_lab.thoughts.editing import noise_like
from latent_lab.thoughts.scores import score, scores
from latent_lab.thoughts.store import ThoughtStore

ROWS = 256
"""Thoughts that are held against the whole vocabulary together."""


def geometry_report(store: ThoughtStore, words: Tensor, *, seed: int = 0) -> dict[str, Any]:
    """Of the thoughts themselves, slot by slot (from 1), and of the input embeddings ``words [vocabulary, width]``.

    For each slot, with ``n`` problems that have it:

    - ``norm``: mean length, with its interval (problems resampled); ``mean_share``: share of the squared length that is the mean
      thought's;
    - ``cosine``: between thoughts of different problems, mean over all pairs; None of a single problem;
    - ``participation``: of the covariance's eigenvalues ``(sum)^2 / sum of squares``, in how many directions thoughts vary: 1 to
      ``width``;
    - ``nearest``: distance to the nearest embedding, ``nearest_random`` that of Gaussian vectors as long, ``nearest_cosine`` the
      largest cosine with any.

    ``cosine_between`` ``[slots][slots]`` is the mean cosine of different problems' thoughts in two slots (the diagonal is
    ``cosine``), ``cosine_same_problem`` that of one problem's own.
    """
    thoughts, count = store.layer(0), store.num_slots
    ids = [str(row["id"]) for row in store.rows]
    slots = thoughts.shape[1]
    has = torch.arange(slots)[None] < count[:, None]
    unit = torch.nn.functional.normalize(thoughts.double(), dim=-1) * has[..., None]
    apart, own = cosines(unit, has)
    rows = []
    for slot in range(slots):
        there = has[:, slot].nonzero()[:, 0].tolist()
        row = of_slot(thoughts[there, slot], [ids[i] for i in there], words.float(), seed)
        rows.append({"slot": slot + 1, "n": len(there), "cosine": apart[slot][slot], **row})
    return {
        "width": thoughts.shape[2],
        "word_norm": float(words.float().norm(dim=-1).mean()),
        "slots": rows,
        "cosine_between": apart,
        "cosine_same_problem": own,
    }


def cosines(unit: Tensor, has: Tensor) -> tuple[list[list[float | None]], list[list[float | None]]]:
    """Mean cosines of all pairs of slots, of different problems' thoughts and of one problem's own; None of no pair.

    ``unit [problems, slots, width]`` are unit vectors, zero where ``has [problems, slots]`` says there is none.
    """
    sums, there = unit.sum(0), has.double()
    own = torch.einsum("pkw,plw->kl", unit, unit)
    both = there.T @ there
    pairs = there.sum(0)[:, None] * there.sum(0)[None] - both
    apart = (sums @ sums.T - own) / pairs.where(pairs > 0, torch.nan)
    mean = own / both.where(both > 0, torch.nan)
    return numbers(apart), numbers(mean)


def numbers(values: Tensor) -> list[list[float | None]]:
    """A matrix as JSON can hold it."""
    return [[None if value != value else value for value in line] for line in values.tolist()]


def of_slot(thoughts: Tensor, ids: list[str], words: Tensor, seed: int) -> dict[str, Any]:
    """What :func:`geometry_report` says of one slot's thoughts ``[n, width]``, their cosines aside."""
    if not len(thoughts):
        return {"norm": score([], []), "mean_share": None, "participation": None}
    length, mean = thoughts.norm(dim=-1), thoughts.mean(0)
    total = float((length**2).mean())
    centred = (thoughts - mean).double()
    spread = centred.T @ centred / len(thoughts)
    squares = float((spread**2).sum())
    random = noise_like(thoughts, torch.Generator().manual_seed(seed))
    measured = (length, nearest(thoughts, words)[0], nearest(random, words)[0], nearest(thoughts, words)[1])
    names = ("norm", "nearest", "nearest_random", "nearest_cosine")
    return {
        **dict(zip(names, scores([each.tolist() for each in measured], ids, seed=seed), strict=True)),
        "mean_share": float((mean**2).sum()) / total if total else None,
        "participation": float(spread.trace()) ** 2 / squares if squares else None,
    }


def nearest(vectors: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
    """``[n]`` each: distance to the nearest of ``words [vocabulary, width]``, and the largest cosine with one."""
    known = torch.nn.functional.normalize(words, dim=-1)
    parts = [
        (torch.cdist(part, words).min(1).values, (torch.nn.functional.normalize(part, dim=-1) @ known.T).max(1).values)
        for part in vectors.split(ROWS)
    ]
    return torch.cat([distance for distance, _ in parts]), torch.cat([cosine for _, cosine in parts])
