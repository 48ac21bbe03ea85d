"""Stores whose vectors are known: what readers find in them can be said beforehand."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from latent_lab.problems import Problem
from latent_lab.problems.arithmetic import Arithmetic
from latent_lab.thoughts.store import ThoughtStore, open_store

SIZES = {"train": 400, "test": 200}


def sums(split: str) -> list[Problem]:
    """Two-digit sums of a split: two columns, and often a last carry."""
    made = Arithmetic(digits=[2], probabilities=[1.0], train_size=SIZES["train"], test_size=SIZES["test"])
    return made.load(split)  # type: ignore[arg-type]


def planted(folder: Path, problems: Sequence[Problem], states: Tensor, num_slots: Sequence[int] | None = None) -> ThoughtStore:
    """A store of these states ``[problems, slots, layers, width]``."""
    folder.mkdir(parents=True)
    slots = num_slots or [states.shape[1]] * len(problems)
    rows = [
        {
            "id": p.id,
            "question": p.question,
            "steps": list(p.steps),
            "gold": p.answer,
            "answer": p.answer,
            "output": f"### {p.answer}",
            "correct": True,
            "num_slots": n,
            "meta": p.meta,
        }
        for p, n in zip(problems, slots, strict=True)
    ]
    (folder / "shard-00000.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    save_file({"states": states.float().contiguous()}, str(folder / "shard-00000.safetensors"))
    layers = list(range(states.shape[2]))
    (folder / "store.json").write_text(json.dumps({"problems": len(rows), "layers": layers, "shards": ["shard-00000"]}))
    return open_store(folder)


def noise(*shape: int, seed: int) -> Tensor:
    """Gaussian numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
