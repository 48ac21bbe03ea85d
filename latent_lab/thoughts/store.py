"""The thought store: what a model holds in its latent slots, layer by layer, for many problems, on disk.

Shards of safetensors with the rows they belong to, written one by one; ``store.json`` comes last. A killed collection goes on
with the first shard that is missing. States are read through memory maps: a store may be larger than memory.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from latent_lab.batching import collate
from latent_lab.files import atomic, write_json
from latent_lab.grading.evaluate import Solver, evenly
from latent_lab.problems import Problem
from latent_lab.progress import progress
from latent_lab.sequences import Encoded

MANIFEST = "store.json"
SHARD = 2048
"""Problems in a shard."""
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class StoreError(ValueError):
    """A store that cannot be read or continued; the message says why."""


def layer_numbers(wanted: Sequence[int | float], num_blocks: int) -> tuple[int, ...]:
    """Layers by number (0 the thought, n after block n, negative from the end) or, with a point, by fraction of the depth.

    ``[0, 0.5, -1]`` of 12 blocks are ``(0, 6, 12)``. ValueError for what the model does not have.
    """
    numbers = []
    for layer in wanted:
        if isinstance(layer, float):
            if not 0 <= layer <= 1:
                raise StoreError(f"layers={list(wanted)}: given {layer}; a fraction of the depth is from 0.0 to 1.0")
            numbers.append(math.floor(layer * num_blocks + 0.5))
        elif -num_blocks - 1 <= layer <= num_blocks:
            numbers.append(layer % (num_blocks + 1))
        else:
            raise StoreError(f"layers={list(wanted)}: given {layer}; allowed are 0 (the thought) to {num_blocks} (blocks)")
    return tuple(dict.fromkeys(numbers))


@dataclass(frozen=True)
class ThoughtStore:
    """An opened store."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def layers(self) -> tuple[int, ...]:
        """Numbers of the layers that are stored; 0 is the thought that was fed in."""
        return tuple(self.manifest["layers"])

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """A row for each problem: ``id``, ``question``, ``steps``, ``gold``, ``answer`` and ``output`` (the model's own),
        ``correct``, ``num_slots``, and ``meta``."""
        names = [self.folder / f"{name}.jsonl" for name in self.manifest["shards"]]
        return [json.loads(line) for path in names for line in path.read_text(encoding="utf-8").splitlines()]

    @property
    def problems(self) -> list[Problem]:
        """The problems themselves."""
        return [Problem(r["id"], r["question"], tuple(r["steps"]), r["gold"], r["meta"]) for r in self.rows]

    @cached_property
    def num_slots(self) -> Tensor:
        """``[problems]``: slots each problem's prompt had; vectors beyond are zero."""
        return torch.tensor([row["num_slots"] for row in self.rows])

    def layer(self, number: int) -> Tensor:
        """``[problems, slots, width]`` in float32: what one layer holds; StoreError for a layer that was not stored."""
        if number not in self.layers:
            raise StoreError(f"layer={number}: {self.folder} holds the layers {', '.join(map(str, self.layers))}")
        at, parts = self.layers.index(number), []
        for name in self.manifest["shards"]:
            with safe_open(self.folder / f"{name}.safetensors", framework="pt") as file:
                parts.append(file.get_slice("states")[:, :, at : at + 1][:, :, 0].float())
        return torch.cat(parts)


def open_store(folder: Path) -> ThoughtStore:
    """Open a complete store, or raise :class:`StoreError`."""
    path = folder / MANIFEST
    if not path.is_file():
        raise StoreError(f"{folder}: holds no {MANIFEST}, so it is no complete store; collect its thoughts to the end first")
    return ThoughtStore(folder, json.loads(path.read_text(encoding="utf-8")))


def collect(
    folder: Path,
    solver: Solver,
    problems: Sequence[Problem],
    encoded: Sequence[Encoded],
    *,
    layers: Sequence[int | float] = (0,),
    dtype: str = "float32",
    identity: dict[str, Any] | None = None,
) -> ThoughtStore:
    """Let a model think through problems and keep what its slots hold; go on where an earlier call was killed.

    ``encoded`` are the same problems as ids; those too long for the model are left out. The answers are the model's own, greedy.
    ``identity`` (hashes of weights and split) is kept in the manifest. Raises :class:`StoreError` where the folder holds another
    collection, or a problem is missing.
    """
    if dtype not in DTYPES:
        raise StoreError(f"dtype={dtype}: allowed are {', '.join(DTYPES)}")
    pairs = [(p, e) for p, e in zip(problems, encoded, strict=True) if solver.fits(e)]
    numbers = layer_numbers(layers, solver.reasoner.model.config.num_hidden_layers)
    ids = hashlib.blake2b("\n".join(p.id for p, _ in pairs).encode(), digest_size=8).hexdigest()
    shards = evenly(pairs, SHARD)
    names = [f"shard-{i:05d}" for i in range(len(shards))]
    manifest = {"problems": len(pairs), "layers": list(numbers), "dtype": dtype, "ids": ids, **(identity or {}), "shards": names}
    folder.mkdir(parents=True, exist_ok=True)
    begin(folder, manifest)
    with progress("collecting", len(pairs), unit="problems") as advance:
        for name, shard in zip(names, shards, strict=True):
            if not (folder / f"{name}.safetensors").exists():
                write_shard(folder, name, solver, [p for p, _ in shard], [e for _, e in shard], numbers, DTYPES[dtype])
            advance(len(shard))
    write_json(folder / MANIFEST, manifest)
    return open_store(folder)


def begin(folder: Path, manifest: dict[str, Any]) -> None:
    """Remember what is collected here, or raise :class:`StoreError` where something else was begun."""
    path = folder / "begun.json"
    if path.is_file():
        begun = json.loads(path.read_text(encoding="utf-8"))
        if odd := [key for key in {**begun, **manifest} if begun.get(key) != manifest.get(key)]:
            raise StoreError(f"{folder}: another collection was begun there (its {', '.join(odd)} differ); give another folder")
    else:
        write_json(path, manifest)


def write_shard(
    folder: Path,
    name: str,
    solver: Solver,
    problems: Sequence[Problem],
    encoded: Sequence[Encoded],
    layers: tuple[int, ...],
    dtype: torch.dtype,
) -> None:
    """Write one shard, its rows first: the safetensors file says that both are whole."""
    graded = solver.graded(problems, encoded)
    parts = [states_of(solver, part, layers) for part in evenly(encoded, solver.batch_size)]
    most = max(states.shape[1] for states, _ in parts)
    whole = [torch.nn.functional.pad(states, (0, 0, 0, 0, 0, most - states.shape[1])) for states, _ in parts]
    counts = torch.cat([count for _, count in parts]).tolist()
    lines = [
        json.dumps(
            {
                "id": p.id,
                "question": p.question,
                "steps": list(p.steps),
                "gold": p.answer,
                **{key: row[key] for key in ("answer", "output", "correct")},
                "num_slots": count,
                "meta": p.meta,
            },
            ensure_ascii=False,
        )
        for p, row, count in zip(problems, graded, counts, strict=True)
    ]
    with atomic(folder / f"{name}.jsonl") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with atomic(folder / f"{name}.safetensors") as temporary:
        save_file({"states": torch.cat(whole).to(dtype).contiguous()}, str(temporary))


@torch.no_grad()
def states_of(solver: Solver, problems: Sequence[Encoded], layers: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """``[problems, slots, layers, width]`` and ``[problems]``: the states of one batch at its prompts, and its slots."""
    batch = collate(solver.prompts(problems), solver.backbone.pad).to(solver.reasoner.device)
    out = solver.reasoner(batch.input_ids, batch.attention_mask, is_closed=batch.is_closed, layers=layers)
    assert out.states is not None
    return out.states.float().cpu(), out.num_slots.cpu()
