"""Rows for planning tokens: added to tokenizer and tables, started, and checked to be where their ids say."""

from collections.abc import Sequence as Seq
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latent_lab.backbone import Backbone, add_rows
from latent_lab.plans.base import PLAN, PlanError
from latent_lab.plans.layout import PREFIX, Blocks
from latent_lab.problems import Problem
from latent_lab.sequences import encode

NOISE = 0.1
"""Of ``mean_noise``, in standard deviations of each coordinate over the table."""


def give_rows(backbone: Backbone, blocks: Blocks, start: str, problems: Seq[Problem]) -> None:
    """Teach a backbone the planning tokens it does not know yet; ``start`` says how their rows begin (``stage.rows_from``)."""
    names, model, tokenizer = blocks.tokens(), backbone.model, backbone.tokenizer
    check_names(backbone, names)
    num_known = len(tokenizer)
    new = add_rows(model, tokenizer, [name for name in names if name not in tokenizer.get_vocab()])
    backbone.more = tuple(tokenizer.convert_tokens_to_ids(names))
    check_rows(backbone, names)
    kinds = {i: blocks.kind_of[tokenizer.convert_ids_to_tokens(i)] for i in new}
    shares = {kind: share(kind, blocks, start, tokenizer, problems, num_known) for kind in sorted(set(kinds.values()))}
    tables = {id(t.weight): t.weight for t in (model.get_input_embeddings(), model.get_output_embeddings())}
    with torch.no_grad():
        for table in tables.values():
            known = table[:num_known].float()
            for i, kind in kinds.items():
                table[i] = started(start, known, shares[kind].to(known.device)).to(table.dtype)


def started(start: str, known: Tensor, weights: Tensor) -> Tensor:
    """A row to begin with: a mean over the table's ``[tokens, width]`` by weights ``[tokens]`` that sum to 1, or noise."""
    if start == "random":
        return torch.randn(known.shape[1], device=known.device) * known.std()
    row = weights @ known
    return row + NOISE * known.std(dim=0) * torch.randn_like(row) if start == "mean_noise" else row


def share(kind: str, blocks: Blocks, start: str, tokenizer: Any, problems: Seq[Problem], num_known: int) -> Tensor:
    """How much each known token counts in the first row of a kind, ``[tokens]``; evenly where nothing speaks for any."""
    ids: list[int] = []
    if start == "word":
        named = blocks.called.get(kind, kind)
        ids = tokenizer([named], add_special_tokens=False, split_special_tokens=True)["input_ids"][0]
    elif start == "centroid":
        for e, labels in zip(encode(problems, tokenizer), blocks.plan.labels(problems), strict=True):
            pieces = [step for step, label in zip(e.steps, labels, strict=True) if kind in label or kind == PREFIX]
            ids += [i for piece in pieces for i in piece]
            ids += e.answer if kind == blocks.plan.answer_kind else ()
    counts = torch.bincount(torch.tensor(ids, dtype=torch.long), minlength=num_known).float()
    return counts / counts.sum() if ids else torch.full((num_known,), 1 / num_known)


def check_names(backbone: Backbone, names: Seq[str]) -> None:
    """Raise :class:`PlanError` where a planning token is something else already: a word of the vocabulary, or a marker.

    A model that was trained with planning tokens (its folder holds a plan) may go on with those it has.
    """
    tokenizer = backbone.tokenizer
    vocabulary, added = tokenizer.get_vocab(), tokenizer.get_added_vocab()
    is_planned = (Path(tokenizer.name_or_path) / PLAN).is_file()
    named = {tokenizer.convert_ids_to_tokens(i) for i in (*astuple(backbone.tokens), backbone.pad, tokenizer.eos_token_id)}
    for name in names:
        if name in vocabulary and (name in named or name not in added or not is_planned):
            raise PlanError(
                f"planning token {name}: the tokenizer has it already, its id is {vocabulary[name]}; "
                "allowed: tokens of other names, by stage.form or stage.names"
            )


def check_rows(backbone: Backbone, names: Seq[str]) -> None:
    """Raise :class:`PlanError` unless every planning token is one id, its own, with a row in both tables."""
    tokenizer, model = backbone.tokenizer, backbone.model
    ids = [tokenizer.convert_tokens_to_ids(name) for name in names]
    rows = min(len(t.weight) for t in (model.get_input_embeddings(), model.get_output_embeddings()))
    taken = {backbone.pad, tokenizer.eos_token_id, tokenizer.unk_token_id}
    for name, i in zip(names, ids, strict=True):
        read = tokenizer(name, add_special_tokens=False)["input_ids"]
        if read != [i] or tokenizer.convert_ids_to_tokens(i) != name or ids.count(i) > 1 or i in taken:
            raise PlanError(
                f"planning token {name}: the tokenizer reads it as {read}, its id is {i}; it must be one id of its own"
            )
        if i >= rows:
            raise PlanError(f"planning token {name}: its id is {i}, but the tables have {rows} rows; it would never be learned")
