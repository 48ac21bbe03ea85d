"""Sparse attention by segment: written text sees the planning tokens before it and itself, and only these see everything.

Planning tokens side by side are a block, and each block begins a segment; what stands before the first block is segment 0. The
mask is made of token ids alone, so it is the same whether a sequence is run at once or token by token over a cache.

Shape suffixes: B batch, Q columns that ask, C columns that are seen.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedModel

from latent_lab.feedback import UnsupportedModel
from latent_lab.loop import Segments

IMPLEMENTATIONS = ("eager", "sdpa")


def visible(segments: Segments, ids_BC: Tensor, real_BC: Tensor, asking: int) -> Tensor:
    """``[B, Q, C]``: what each of the last ``asking`` columns may attend to, itself included; padding is seen by nobody."""
    is_plan_BC = torch.isin(ids_BC, torch.tensor(segments.plan_ids, device=ids_BC.device)) & real_BC.bool()
    begins_BC = is_plan_BC.clone()
    begins_BC[:, 1:] &= ~is_plan_BC[:, :-1]
    number_BC = begins_BC.cumsum(1)
    own_BQ1, seen_B1C = number_BC[:, -asking:, None], number_BC[:, None]
    allowed = is_plan_BC[:, -asking:, None] | (seen_B1C == own_BQ1)
    if segments.sees_question:
        allowed = allowed | (seen_B1C == 0)
    if segments.earlier:
        allowed = allowed | (is_plan_BC[:, None] & (seen_B1C >= own_BQ1 - segments.earlier))
    columns = torch.arange(ids_BC.shape[1], device=ids_BC.device)
    return allowed & (columns <= columns[-asking:, None]) & real_BC.bool()[:, None]


def added(segments: Segments, ids_BC: Tensor, real_BC: Tensor, asking: int, dtype: torch.dtype) -> Tensor:
    """``[B, 1, Q, C]``: what is added to attention scores. Half the lowest number, which stays finite in any other type."""
    hidden = ~visible(segments, ids_BC, real_BC, asking)
    return torch.zeros(hidden.shape, dtype=dtype, device=ids_BC.device).masked_fill(hidden, torch.finfo(dtype).min / 2)[:, None]


def check_attention(model: PreTrainedModel) -> None:
    """Raise :class:`UnsupportedModel` for a model whose attention takes no mask of ours."""
    given = model.config._attn_implementation
    if given not in IMPLEMENTATIONS:
        raise UnsupportedModel(f"attention by segment: given {given}; allowed are {', '.join(IMPLEMENTATIONS)}")
    kinds = getattr(model.config, "layer_types", None) or ()
    if set(kinds) - {"full_attention"} or (not kinds and getattr(model.config, "sliding_window", None)):
        raise UnsupportedModel(f"attention by segment: {type(model).__name__} has windows of its own, which it would undo")


class Decoding(LogitsProcessor):
    """Masks every token that ``generate`` runs over a filled cache. It changes no score: it is told which rows are left."""

    def __init__(self, ids: Tensor) -> None:
        self.ids_BC = ids
        self.has_chosen = False  # a token after these ids

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone."""
        self.ids_BC = self.ids_BC[list(rows)]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """``[rows, tokens]`` so far, which the next token will be run after."""
        self.ids_BC, self.has_chosen = input_ids, True
        return scores


@contextmanager
def decoding(segments: Segments | None, model: PreTrainedModel, ids: Tensor, options: dict[str, Any]) -> Iterator[None]:
    """While ``model.generate`` continues ``ids [B, C]`` under ``options``, which get a processor more; None: nothing happens."""
    if segments is None:
        yield
        return
    config = options.get("generation_config") or model.generation_config
    if (options.get("num_beams") or getattr(config, "num_beams", None) or 1) > 1:
        raise ValueError("num_beams: attention by segment does not follow beams that change places; allowed: 1")
    at = Decoding(ids)
    options["logits_processor"] = [*(options.get("logits_processor") or ()), at]
    body: Any = model.base_model

    def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        given: Any = args[0] if args else kwargs.get("input_ids")
        asking = (kwargs["inputs_embeds"] if given is None else given).shape[1]
        ids_BC = torch.cat([at.ids_BC, given[:, -1:]], dim=1) if at.has_chosen else at.ids_BC
        real_BC = kwargs["attention_mask"]  # None, where there is no padding
        real_BC = torch.ones_like(ids_BC) if real_BC is None else real_BC
        mask = added(segments, ids_BC, real_BC, asking, module.get_input_embeddings().weight.dtype)
        return args, {**kwargs, "attention_mask": mask}

    hook = body.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
