"""Greedy decoding by the backbone's own ``generate``, with nothing read or run twice that need not be.

A batch decodes for as long as its longest answer. Where answers are unequally long most of that work is for rows that have
long ended; between two spans of tokens these are taken out of the cache. A prompt that is continued many times is read once, and
a run of the latent loop can be stopped and go on more than once.
"""

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

if TYPE_CHECKING:
    from latent_lab.passes import Passes

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


def reads_once(model: Any) -> bool:
    """Whether :func:`continued` can read a prompt once for all its rows: not where the model makes a cache of its own kind."""
    return not model._is_stateful and model.generation_config.cache_implementation is None


def reads_in_pieces(model: Any) -> bool:
    """Whether it can also read what prompts begin with once for all of them: where every block sees all that is not masked.

    Between a beginning and a rest there may be padding, which a window counts and a recurrent block reads.
    """
    return reads_once(model) and all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)


@torch.no_grad()
def continued(model: Any, pieces: Sequence[tuple[Tensor, Tensor, Tensor]], **options: Any) -> Tensor:
    """Continue prompts that are read in pieces, each with ids ``[P, C]`` and mask ``[P, C]``, padded on their left, and ``rows``.

    ``rows`` are the rows of a piece that those of the next go on from, each as often as its number stands there; those of the
    last piece are the ``[B]`` samples. So a prompt is read once for all its samples if :func:`reads_once`, and a beginning once
    for all its prompts; there may be more than one piece if :func:`reads_in_pieces`. ``options`` as in :func:`in_spans`. New
    tokens ``[B, at most max_new_tokens]``.
    """
    ids = mask = pieces[0][0][:, :0]
    cache = DynamicCache(config=model.config) if reads_once(model) else None
    known = inspect.signature(model.base_model.forward).parameters
    read = 0
    for number, (piece, real, rows) in enumerate(pieces, start=1):
        ids, mask = torch.cat([ids, piece], dim=1), torch.cat([mask, real], dim=1)
        end = ids.shape[1] - (number == len(pieces))  # the very last token is run for each sample
        if cache is not None and end > read:
            positions = {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)[:, read:end]}
            given = {name: value for name, value in positions.items() if name in known}
            model.base_model(ids[:, read:end], attention_mask=mask[:, :end], past_key_values=cache, use_cache=True, **given)
            read = end
        if cache is not None and read:
            cache.batch_select_indices(rows)
        ids, mask = ids[rows], mask[rows]
    return in_spans(model.generate, ids, mask, cache if read else None, **options)


@dataclass
class Paused:
    """A run stopped between two passes, from which :meth:`LatentReasoner.generate` can go on more than once."""

    cut: "Passes"
    is_closed: Tensor | None
    done: int
    """Passes done."""
    cache: DynamicCache
    fed: list[Tensor]
    taken_BD: Tensor | None
    """The state that the next thought is made of."""
    current_BD: Tensor | None

    def rows(self, index: Tensor) -> "Paused":
        """The same for the rows ``index``, in that order; a row may occur more than once."""
        cache = copied(self.cache)
        for layer in cache.layers:
            layer.keys, layer.values = layer.keys[index], layer.values[index]
        taken_BD, current_BD, is_closed = (
            None if t is None else t[index] for t in (self.taken_BD, self.current_BD, self.is_closed)
        )
        return Paused(self.cut.rows(index), is_closed, self.done, cache, [t[index] for t in self.fed], taken_BD, current_BD)


def copied(cache: DynamicCache) -> DynamicCache:
    """A cache that can grow by itself; keys and values so far are shared, as growing never changes them in place."""
    made = copy.copy(cache)
    made.layers = [copy.copy(layer) for layer in cache.layers]
    return made
