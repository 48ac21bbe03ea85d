"""The published training step, written anew to be measured: what the latent loop costs if it is done as its paper's code does.

Coconut's own implementation: every pass makes the logits of all its tokens and keeps the states of all layers, the keys and
values of the past are copied for each pass, and a thought is put in its place by taking the whole batch apart into single vectors
and stacking these again. Backward each of the vectors gets a gradient as large as the batch, so a part of the cost grows with
the square of rows x tokens.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import DynamicCache, GPT2LMHeadModel

from latent_lab.sequences import IGNORE


def published_loss(backbone: GPT2LMHeadModel, ids: Tensor, labels: Tensor, latent: int) -> Tensor:
    """Mean loss of a batch ``[rows, tokens]`` whose rows have their slots in the same columns."""
    slots = (ids[0] == latent).nonzero()[:, 0].tolist()
    embeds = backbone.get_input_embeddings()(ids)
    mask, positions = torch.ones_like(ids), torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)
    logits: list[Tensor] = []
    cache, begin = DynamicCache(config=backbone.config), 0
    for end in [*slots, ids.shape[1]]:
        out = backbone(
            inputs_embeds=embeds[:, begin:end],
            attention_mask=mask[:, :end],
            position_ids=positions[:, begin:end],
            past_key_values=cache,
            use_cache=True,
            output_hidden_states=True,
        )
        logits.append(out.logits)
        for layer in cache.layers:
            layer.keys, layer.values = layer.keys[:, :, :end].clone(), layer.values[:, :, :end].clone()
        if end < ids.shape[1]:
            embeds = with_thoughts(embeds, out.hidden_states[-1][:, -1], end)
        begin = end
    shifted = torch.cat(logits, dim=1)[:, :-1].contiguous()
    return cross_entropy(shifted.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE)


def with_thoughts(embeds: Tensor, thoughts: Tensor, column: int) -> Tensor:
    """``embeds [rows, tokens, width]`` with ``thoughts [rows, width]`` in one column."""
    vectors = [[embeds[row, place] for place in range(embeds.shape[1])] for row in range(len(embeds))]
    for row, thought in zip(vectors, thoughts, strict=True):
        row[column] = thought
    return torch.stack([torch.stack(row) for row in vectors])
