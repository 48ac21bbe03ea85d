"""Greedy decoding by the backbone's own ``generate``, a few tokens at a time: rows that have ended cost nothing from then on.

A batch decodes for as long as its longest answer. Where answers are unequally long most of that work is for rows that have
long ended; between two spans of tokens these are taken out of the cache.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

ROW_BY_ROW = {"do_sample", "position_ids", "inputs_embeds", "logits_processor"}
"""Options of ``generate`` under which what a row writes depends on neither the other rows nor on where decoding began."""
SPAN = 8
"""Tokens between two looks at which rows have ended: a look costs about a tenth of a token's work."""


def may_be_cut(options: dict[str, Any]) -> bool:
    """Whether decoding under these options of ``generate`` may stop and go on with fewer rows."""
    processors = options.get("logits_processor") or ()
    return options.keys() <= ROW_BY_ROW and not options["do_sample"] and all(hasattr(each, "keep") for each in processors)


def in_spans(
    generate: Callable[..., Any],
    ids: Tensor,
    mask: Tensor,
    cache: Any,
    *,
    max_new_tokens: int,
    eos_token_id: int | list[int],
    pad_token_id: int,
    span: int = SPAN,
    position_ids: Tensor | None = None,
    inputs_embeds: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """Continue every row of ``ids [B, C]`` until it ends; ``[B, at most max_new_tokens]`` new tokens, padded after their end.

    ``cache`` holds all columns but the last, as ``generate`` wants it (None: there is one column alone). ``position_ids [B, C]``
    where they are not to be counted from ``mask``, ``inputs_embeds [B, C, D]`` where the last column is no token's embedding.
    Every processor in ``logits_processor`` must have ``keep(rows)``, which tells it which rows are left. Equal to one call of
    ``generate``.
    """
    ends = torch.tensor([eos_token_id] if isinstance(eos_token_id, int) else eos_token_id, device=ids.device)
    out = ids.new_full((len(ids), max_new_tokens), pad_token_id)
    rows, done = torch.arange(len(ids), device=ids.device), 0
    first = {} if inputs_embeds is None else {"inputs_embeds": inputs_embeds}
    while True:
        written = generate(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache,
            max_new_tokens=min(span, max_new_tokens - done),
            eos_token_id=eos_token_id,
            pad_token_id=pad_token_id,
            return_dict_in_generate=True,
            **({} if position_ids is None else {"position_ids": position_ids}),
            **first,
            **options,
        )
        new = written.sequences[:, ids.shape[1] :]
        out[rows, done : done + new.shape[1]] = new
        done += new.shape[1]
        going = (~torch.isin(new, ends).any(1)).nonzero()[:, 0]
        if done == max_new_tokens or not len(going):
            return out[:, :done]
        cache, first = written.past_key_values, {}
        if len(going) < len(rows):
            cache.batch_select_indices(going)
            for processor in options.get("logits_processor", ()):
                processor.keep(going.tolist())
        rows, ids = rows[going], written.sequences[going]
        mask = torch.cat([mask[going], mask.new_ones(len(going), new.shape[1])], dim=1)
        if position_ids is not None:
            more = torch.arange(1, new.shape[1] + 1, device=ids.device)
            position_ids = torch.cat([position_ids[going], position_ids[going][:, -1:] + more], dim=1)
