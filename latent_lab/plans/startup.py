"""What is checked before a training with planning tokens begins: rows, gradients, padding; and the loss mask in words."""

import logging
from itertools import groupby
from typing import TYPE_CHECKING

from latent_lab.adapters import row_gradients
from latent_lab.backbone import Backbone
from latent_lab.batching import Batch
from latent_lab.plans.base import PlanError
from latent_lab.plans.reading import Reading
from latent_lab.plans.rows import check_rows
from latent_lab.sequences import IGNORE, Sequence
from latent_lab.supervision import SupervisedReasoner

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)


def inspect(learner: SupervisedReasoner, batch: Batch, backbone: Backbone, reading: Reading, first: Sequence) -> None:
    """Raise :class:`PlanError` for a training that could not teach its tokens; say what of ``first`` is learned."""
    check_rows(backbone, reading.blocks.tokens())
    if bool((batch.labels[batch.attention_mask == 0] != IGNORE).any()):
        raise PlanError(f"padding: labels stand on it (id {backbone.pad}), so it would be learned; leave them at {IGNORE} there")
    check_gradients(learner, batch, backbone, reading)
    log.info("what is learned of %s: %s", first.problem.id, mask_in_words(first, backbone))


def check_gradients(learner: SupervisedReasoner, batch: Batch, backbone: Backbone, reading: Reading) -> None:
    """Raise :class:`PlanError` unless a gradient reaches the row of each planning token of the batch, in every table."""
    learner.eval()  # dropout would draw from the generator that training draws from
    batch = batch.to(learner.reasoner.device)
    terms = learner(batch)
    total: Tensor = sum(learner.weights[name] * term for name, term in terms.items())
    total.backward()
    used = sorted(set(batch.input_ids.flatten().tolist()) & set(reading.ids))
    if not used:
        log.warning("no planning token stands in the first batch: whether a gradient reaches their rows was not checked")
    tables = row_gradients(backbone)
    learner.zero_grad(set_to_none=True)
    if not tables:
        log.info("planning tokens keep the rows they began with: peft trains no rows")
    for name, norms in tables.items():
        if still := [i for i in used if not norms.get(i, 0.0) > 0]:
            names = ", ".join(backbone.tokenizer.convert_ids_to_tokens(still[:3]))
            raise PlanError(f"planning tokens {names}: no gradient reaches their rows of the {name} table; they would not learn")


def mask_in_words(sequence: Sequence, backbone: Backbone) -> str:
    """A laid-out problem piece by piece: role, text, and whether it is learned."""
    tokens = list(zip(sequence.roles, sequence.ids, sequence.labels, strict=True))
    pieces = [
        (role.name.lower(), is_learned, backbone.tokenizer.decode([i for _, i, _ in part]))
        for (role, is_learned), part in groupby(tokens, key=lambda each: (each[0], each[2] != IGNORE))
    ]
    return " ".join(f"{role}{'' if is_learned else ' (not learned)'} {text!r}" for role, is_learned, text in pieces)
