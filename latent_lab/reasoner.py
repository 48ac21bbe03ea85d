"""The latent loop: a causal language model that feeds its own hidden states back as input embeddings.

Coconut (arXiv 2412.06769, section 3). Each latent slot receives the *thought* of the position before it: the last layer's state
after the final norm. A batch is run as a few passes of the backbone over one growing key/value cache: one over everything up to
the first slot, one token a slot after that, one over the rest. Gradients flow through all of it.

Rows may hold unequal numbers of slots, or none, under any padding. The passes are aligned inside: each row is cut at its slots,
and its *last* piece (last slot and text) always goes through the final pass; a row with nothing to do in a pass is masked there.

This is the only file that knows the key/value cache. The Hugging Face model stays untouched.

Shape suffixes: B batch, T input columns, W columns of one pass, C columns of all passes so far, K slots, D width,
N labelled tokens, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from latent_lab.sequences import IGNORE, LatentTokens

__all__ = ["LatentReasoner", "LatentTokens", "ReasonerOutput"]

ThoughtEdit = Callable[[int, Tensor, Tensor], Tensor]
"""A change to thoughts at inference: ``edit(slot, thoughts[batch, width], active[batch])`` returns what is fed in instead;
``active`` marks the rows that have this slot."""

SCALED_HEADS = ("final_logit_softcapping", "logit_scale", "logits_scaling")


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
    """``[batch, slots, width]``: the vector fed into each slot; zero where a row has fewer slots than the batch's most."""
    num_slots: Tensor
    """``[batch]``: how many of ``thoughts`` are real."""


class LatentReasoner(nn.Module):
    """A backbone (any Hugging Face causal LM with a cache, with or without PEFT) that thinks in its latent slots."""

    def __init__(self, backbone: nn.Module, tokens: LatentTokens) -> None:
        """Wrap ``backbone``; nothing of it is changed or copied. ``tokens`` holds the ids of the three markers."""
        super().__init__()
        self.backbone = backbone
        self.tokens = tokens
        config = self.model.config
        if odd := [name for name in SCALED_HEADS if getattr(config, name, None) not in (None, 1, 1.0)]:
            raise ValueError(f"{type(self.model).__name__} rescales its logits ({', '.join(odd)}), which is not supported yet")

    @property
    def model(self) -> PreTrainedModel:
        """The Hugging Face causal LM itself, inside a PEFT wrapper if there is one."""
        backbone: Any = self.backbone
        return cast(PreTrainedModel, backbone.get_base_model() if hasattr(backbone, "get_base_model") else backbone)

    @property
    def device(self) -> torch.device:
        """Where the input embeddings live."""
        return self.model.get_input_embeddings().weight.device

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> ReasonerOutput:
        """Think through every slot and, given labels, compute the loss.

        Args:
            input_ids: ``[batch, tokens]``; slots hold the id ``tokens.latent``.
            attention_mask: ``[batch, tokens]``, 0 at padding, which may stand anywhere; default: no padding.
            labels: ``[batch, tokens]``, unshifted, -100 where nothing is to be predicted.
            position_ids: ``[batch, tokens]``; default: 0, 1, ... over each row's real tokens.
        """
        cut = Passes.cut(input_ids, attention_mask, self.tokens.latent, position_ids)
        rollout = Rollout(self.model, cut)
        hidden_BCD = torch.cat(rollout.run(), dim=1)
        output = ReasonerOutput(None, None, 0, None, None, rollout.thoughts(), cut.num_slots)
        if labels is not None:
            rows, columns, targets = cut.labelled(labels)
            logits_NV = self.model.get_output_embeddings()(hidden_BCD[rows, columns])
            logits_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
            output.loss_sum = nn.functional.cross_entropy(logits_NV, targets, reduction="sum")
            output.num_labels = len(targets)
            output.loss = output.loss_sum / max(output.num_labels, 1)
            output.logits, output.targets = logits_NV, targets
        return output

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        max_new_tokens: int,
        eos_token_id: int | list[int] | None = None,
        pad_token_id: int | None = None,
        edit: ThoughtEdit | None = None,
        **options: Any,
    ) -> Tensor:
        """Think through the prompt's slots, then decode with the backbone's own ``generate`` over the filled cache.

        ``options`` go to ``generate`` as they are (sampling, beams, streamers, stopping); the default is greedy. ``edit`` changes
        thoughts before they are fed in. Returns only the new tokens, ``[batch * num_return_sequences, at most max_new_tokens]``.
        """
        cut = Passes.cut(input_ids, attention_mask, self.tokens.latent, None)
        rollout = Rollout(self.model, cut, edit)
        rollout.run(hold_back=True)
        ids, mask = cut.compact(input_ids, pad_token_id if pad_token_id is not None else 0)
        options = {"do_sample": False, **options}
        if cut.ends_in_slot:  # the last column is fed as a vector, not as the embedding of <|latent|>
            embeds = rollout.held_BD.new_zeros(*ids.shape, rollout.held_BD.shape[-1])
            embeds[:, -1] = rollout.held_BD
            options["inputs_embeds"] = embeds
        rollout.cache.batch_repeat_interleave(self._copies(options))  # generate repeats its tensors, but not the cache
        generate: Any = self.backbone.generate
        new = generate(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=rollout.cache if cut.widths != [1] else None,
            max_new_tokens=max_new_tokens,
            eos_token_id=eos_token_id,
            pad_token_id=pad_token_id,
            **options,
        )
        return new[:, ids.shape[1] :]

    def _copies(self, options: dict[str, Any]) -> int:
        """How many rows (beams or samples) ``generate`` will make of each."""
        config = options.get("generation_config") or self.model.generation_config
        return max(options.get(name) or getattr(config, name, None) or 1 for name in ("num_beams", "num_return_sequences"))


@dataclass
class Passes:
    """A padded batch cut into the passes of the latent loop; every pass is packed to the right (padding on its left).

    Pass 0 holds what stands before each row's first slot, pass j (0 < j < K) slot j and what follows it, pass K the last slot of
    every row and the rest, where K is the largest number of slots in the batch. Rows without slots are split between the first
    and the last pass, so that they cost no extra columns.
    """

    ids: list[Tensor]
    """For each pass ``[B, W]``: token ids (0 at padding)."""
    masks: list[Tensor]
    """For each pass ``[B, W]``: True at real tokens."""
    positions: list[Tensor]
    """For each pass ``[B, W]``: position ids (0 at padding)."""
    is_slot: list[Tensor]
    """For each pass ``[B, W]``: True where a thought is fed in."""
    num_slots: Tensor
    """``[B]``."""
    column: Tensor
    """``[B, T]``: the column each real input token has when all passes are laid side by side; -1 at padding."""

    @classmethod
    def cut(cls, input_ids: Tensor, attention_mask: Tensor | None, latent: int, position_ids: Tensor | None) -> "Passes":
        """Decide in which pass and column each token goes. All of it is integer work on ``[B, T]``."""
        real = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        slot = (input_ids == latent) & real
        if position_ids is None:
            position_ids = (real.cumsum(1) - 1).clamp(min=0)
        piece = slot.cumsum(1)
        num_slots = piece[:, -1]
        if bool((slot & (real.cumsum(1) == 1)).any()):
            raise ValueError(
                "a row begins with <|latent|>: a thought is the state of the token before it, so give at least one token first"
            )
        most = int(num_slots.max())
        final = piece == num_slots[:, None]
        number = torch.where(final, most, piece)
        if most:  # rows without slots: the end goes with the others' last pieces, the rest with their prefixes
            without = num_slots == 0
            width = int(((number == most) & real & ~without[:, None]).sum(1).max())
            from_end = real.flip(1).cumsum(1).flip(1)
            number = torch.where(without[:, None] & (from_end > width), 0, number)
        number = torch.where(real, number, -1)

        column = torch.full_like(input_ids, -1)
        passes = cls([], [], [], [], num_slots, column)
        before = 0
        for j in range(most + 1):
            member = number == j
            width = max(int(member.sum(1).max()), 1)
            rows, cols = member.nonzero(as_tuple=True)
            at = width - member.flip(1).cumsum(1).flip(1)[rows, cols]
            column[rows, cols] = before + at
            before += width
            mask = input_ids.new_zeros(len(input_ids), width, dtype=torch.bool)
            mask[rows, at] = True
            passes.masks.append(mask)
            for source, target in ((input_ids, passes.ids), (position_ids, passes.positions), (slot, passes.is_slot)):
                packed = source.new_zeros(len(input_ids), width)
                packed[rows, at] = source[rows, cols]
                target.append(packed)
        return passes

    @property
    def widths(self) -> list[int]:
        """Columns of each pass."""
        return [ids.shape[1] for ids in self.ids]

    @property
    def ends_in_slot(self) -> bool:
        """Whether some row's last token is a slot."""
        return bool(self.is_slot[-1][:, -1].any())

    def compact(self, input_ids: Tensor, pad: int) -> tuple[Tensor, Tensor]:
        """The batch as the cache sees it: ids and mask, ``[B, C]``, all passes side by side."""
        mask = torch.cat(self.masks, dim=1)
        return torch.cat(self.ids, dim=1).masked_fill(~mask, pad), mask.to(input_ids.dtype)

    def labelled(self, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows and columns (of all passes side by side) whose state predicts a labelled token, and those labels: three ``[N]``.

        A label is predicted from the real token before it in its row; labels at padding or at a row's first token do not count.
        """
        order = torch.arange(labels.shape[1], device=labels.device).expand_as(labels)
        seen = torch.where(self.column >= 0, order, -1).cummax(1).values
        before = torch.cat([torch.full_like(seen[:, :1], -1), seen[:, :-1]], dim=1)
        rows, cols = ((labels != IGNORE) & (self.column >= 0) & (before >= 0)).nonzero(as_tuple=True)
        return rows, self.column[rows, before[rows, cols]], labels[rows, cols]


class Rollout:
    """One run through the passes. Iterating yields each pass's states ``[B, W, D]`` (last layer, after the final norm)."""

    def __init__(self, model: PreTrainedModel, cut: Passes, edit: ThoughtEdit | None = None) -> None:
        if model.training and getattr(model.base_model, "gradient_checkpointing", False):
            raise ValueError("gradient checkpointing drops the key/value cache that the latent loop needs: switch it off")
        self.cut = cut
        self.edit = edit
        self.body = model.base_model
        self.embed = model.get_input_embeddings()
        self.cache = DynamicCache(config=model.config)
        self.fed: list[Tensor] = []
        self.held_BD: Tensor

    def run(self, *, hold_back: bool = False) -> list[Tensor]:
        """Run every pass and return its states ``[B, W, D]`` (last layer, after the final norm).

        ``hold_back`` leaves out the very last column, which ``generate`` runs itself, and keeps its embedding as ``held_BD``.
        """
        states: list[Tensor] = []
        current_BD: Tensor | None = None
        last = len(self.cut.ids) - 1
        for j in range(last + 1):
            embeds_BWD = self._embeds(j, current_BD)
            if j == last and hold_back:
                embeds_BWD, self.held_BD = embeds_BWD[:, :-1], embeds_BWD[:, -1]
            if embeds_BWD.shape[1]:
                states.append(self._forward(j, embeds_BWD, use_cache=last > 0 or hold_back))
            if j < last:
                current_BD = self._think(j, states[-1][:, -1], current_BD)
        return states

    def thoughts(self) -> Tensor:
        """``[B, K, D]``: what was fed into each slot."""
        if not self.fed:
            weight = self.embed.weight
            return weight.new_zeros(len(self.cut.num_slots), 0, weight.shape[1])
        return torch.stack(self.fed, dim=1)

    def _think(self, j: int, state_BD: Tensor, current_BD: Tensor | None) -> Tensor:
        """Take the state after pass j as the thought of slot j; others keep the thought they still wait to use."""
        active = self.cut.num_slots > j
        if self.edit is not None:
            state_BD = self.edit(j, state_BD, active)
        self.fed.append(torch.where(active[:, None], state_BD, 0.0))
        return state_BD if current_BD is None else torch.where(active[:, None], state_BD, current_BD)

    def _embeds(self, j: int, current_BD: Tensor | None) -> Tensor:
        embeds_BWD = self.embed(self.cut.ids[j])
        if current_BD is None:
            return embeds_BWD
        return torch.where(self.cut.is_slot[j][..., None], current_BD[:, None].to(embeds_BWD.dtype), embeds_BWD)

    def _forward(self, j: int, embeds_BWD: Tensor, *, use_cache: bool) -> Tensor:
        width = embeds_BWD.shape[1]
        mask_BC = torch.cat([*self.cut.masks[:j], self.cut.masks[j][:, :width]], dim=1)
        out = self.body(
            inputs_embeds=embeds_BWD,
            # Without mask and cache, transformers takes any jump in the positions for the border of two packed sequences.
            attention_mask=None if use_cache and bool(mask_BC.all()) else mask_BC.long(),
            position_ids=self.cut.positions[j][:, :width],
            past_key_values=self.cache if use_cache else None,
            use_cache=use_cache,
        )
        return out.last_hidden_state
