"""What a language model makes of each step: the vectors that clustering plans are learned from."""

import itertools
from collections.abc import Sequence as Seq
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latent_lab.adapters import virtual_in
from latent_lab.backbone import Pretrained
from latent_lab.batching import collate
from latent_lab.plans.base import PlanError
from latent_lab.problems import Problem
from latent_lab.run import device_at_work
from latent_lab.sequences import encode, join

BATCH = 32
"""Problems run at once."""


def embed(problems: Seq[Problem], path: str, *, layer: int, pooling: str, in_context: bool) -> list[np.ndarray]:
    """For each problem the vectors of its steps, ``[steps, width]``.

    A step's vector is the mean over its own tokens (or its last token's state) after block ``layer``; 0 is the input embedding,
    -1 the last. In context the model has read the question and the steps before; else the step alone.
    """
    if virtual_in(Path(path)):
        raise PlanError(f"plan.model: {path} has virtual tokens, which no step has before it; allowed: runs with other adapters")
    backbone = Pretrained(path=path).load()
    model: Any = backbone.model
    model = model.to(device_at_work()).eval()
    if not -model.config.num_hidden_layers - 1 <= layer <= model.config.num_hidden_layers:
        raise PlanError(
            f"plan.layer={layer}: the model at {path} has {model.config.num_hidden_layers} layers; allowed: 0 to that"
        )
    encoded = encode(problems, backbone.tokenizer)
    if in_context:
        rows = [join(p, None, steps=range(len(p.steps))) for p in encoded]
        spans = [bounds(len(p.question), p.steps) for p in encoded]
    else:
        alone = [replace(p, question=step, steps=()) for p in encoded for step in p.steps]
        rows = [join(p, None, with_target=False) for p in alone]
        spans = [[(0, len(p.question))] for p in alone]
    found: list[np.ndarray] = [np.zeros((0, model.config.hidden_size), dtype=np.float32)] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        batch = collate([rows[i] for i in part], backbone.pad).to(model.device)
        with torch.no_grad():
            states = model(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, output_hidden_states=True, use_cache=False
            ).hidden_states[layer]
        for i, state in zip(part, states.float().cpu(), strict=True):
            pieces = [state[a:b].mean(dim=0) if pooling == "mean" else state[b - 1] for a, b in spans[i]]
            if pieces:
                found[i] = torch.stack(pieces).numpy()
    if in_context:
        return found
    flat = iter(found)
    return [np.concatenate([next(flat) for _ in p.steps]) if p.steps else found[0][:0] for p in encoded]


def bounds(first: int, steps: Seq[Seq[int]]) -> list[tuple[int, int]]:
    """Where each step begins and ends among the tokens, the first step at ``first``."""
    ends = np.cumsum([first, *map(len, steps)]).tolist()
    return list(itertools.pairwise(ends))


def folder_of(model: str, outputs: Path) -> str:
    """A model's folder: of a finished run, given by its folder or its name below ``outputs``, the checkpoint; else as given."""
    for place in (Path(model).expanduser(), outputs / model):
        if (place / "checkpoint" / "config.json").is_file():
            return str(place / "checkpoint")
    return model
