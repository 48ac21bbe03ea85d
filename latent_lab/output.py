"""What a forward of the latent loop returns."""

from dataclasses import dataclass

from torch import Tensor


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
