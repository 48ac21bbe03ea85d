"""What a forward of the latent loop returns, and how it is picked out of the states of all passes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from latent_lab.passes import Passes


@dataclass
class ReasonerOutput:
    """What one forward returns."""

    loss: Tensor | None
    """Mean cross-entropy over the labelled tokens, a scalar; None without labels."""
    loss_sum: Tensor | None
    """The same, summed instead of averaged: add sums and counts to weigh every token of several batches alike."""
    num_labels: int
    """Labelled tokens that have a token before them."""
    logits: Tensor | None
    """``[labelled tokens, vocabulary]``: logits exist for labelled positions only, in row-major order."""
    targets: Tensor | None
    """``[labelled tokens]``: the label each row of ``logits`` should predict."""
    thoughts: Tensor
    """``[batch, slots, width]``: the vector fed into each slot (for pause tokens the state before it, which is not fed); zero
    where a row has fewer slots than the batch's most."""
    num_slots: Tensor
    """``[batch]``: how many of ``thoughts`` are real."""
    anchored: Tensor | None = None
    """``[layers, batch, width]``: each layer's state at the row's anchor; None without anchors."""
    states: Tensor | None = None
    """``[batch, slots, layers, width]``: what the layers asked for hold at each slot, zero where a row has no such slot."""
    heard: Tensor | None = None
    """``[batch, tokens, width]``: the thought that a slot behind each token would be fed; anything at padding."""


def anchored(cut: Passes, layers: Sequence[tuple[Tensor, ...]], anchors: Tensor) -> Tensor:
    """``[layers, B, D]``: every layer's state at the input columns ``anchors [B]``, which the last pass must hold.

    ``layers`` are of each pass, one for each block, ``[B, W, D]``.
    """
    rows = torch.arange(len(anchors), device=anchors.device)
    last = layers[-1]
    columns = cut.column[rows, anchors] - (sum(cut.widths) - last[0].shape[1])
    if int(columns.min()) < 0:
        raise ValueError("anchors: some lie before the row's last slot; give columns after it")
    return torch.stack([layer_BWD[rows, columns] for layer_BWD in last])


def states_at_slots(cut: Passes, layers: Sequence[tuple[Tensor, ...]], numbers: Sequence[int], thoughts_BKD: Tensor) -> Tensor:
    """``[B, K, layers, D]``: the thoughts fed in (layer 0), and the states after the blocks named, at the slots."""
    most = len(layers[0])
    if wrong := [n for n in numbers if not 0 <= n <= most]:
        raise ValueError(f"layers={list(numbers)}: given {wrong[0]}; allowed are 0 (the thought) to {most} (blocks)")
    rows, cols = cut.slot.nonzero(as_tuple=True)
    slots, columns = cut.slot.cumsum(1)[rows, cols] - 1, cut.column[rows, cols]
    found = []
    for n in numbers:
        if n == 0:
            found.append(thoughts_BKD)
            continue
        layer_BCD = torch.cat([blocks[n - 1] for blocks in layers], dim=1)
        found.append(torch.zeros_like(thoughts_BKD).index_put((rows, slots), layer_BCD[rows, columns].to(thoughts_BKD.dtype)))
    return torch.stack(found, dim=2)
