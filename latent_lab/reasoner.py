"""The latent loop: a causal language model that feeds its own hidden states back as input embeddings.

Coconut (arXiv 2412.06769, section 3). Each latent slot receives the *thought* of the position before it: the last layer's state
after the final norm. A batch is run as a few passes of the backbone over one growing key/value cache: one over everything up to
the first slot, one token a slot after that, one over the rest. Gradients flow through all of it.

Rows may hold unequal numbers of slots, or none, under any padding. The passes are aligned inside: each row is cut at its slots,
and its *last* piece (last slot and text) always goes through the final pass; a row with nothing to do in a pass is masked there.

Variants (:class:`latent_lab.loop.Loop`): pause tokens, which feed nothing back and need one pass; Jacobi iterations, which run
all slots in parallel a few times; thoughts taken before the norm, projected, rescaled or detached; and a bottleneck, in which
what follows the last slot sees the thoughts only.

Where planning tokens are to be read alone, what each column sees is :mod:`latent_lab.segments`'.

Only this file and :mod:`latent_lab.decoding` know the key/value cache. The Hugging Face model stays untouched.

Shape suffixes: B batch, T input columns, W columns of one pass, C columns of all passes so far, K slots, D width,
N labelled tokens, V vocabulary.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from latent_lab.decoding import Paused, copied, in_spans, may_be_cut
from latent_lab.edits import CacheEdit, Edits, ResidualEdit, Slots, ThoughtEdit, edited_blocks
from latent_lab.feedback import Feedback, UnsupportedModel, blocks_of, final_norm, scaled
from latent_lab.gathering import gathering
from latent_lab.loop import Loop
from latent_lab.output import ReasonerOutput, anchored, states_at_slots
from latent_lab.passes import Passes, PassShape
from latent_lab.segments import added, check_attention, decoding
from latent_lab.sequences import LatentTokens
from latent_lab.virtual import begun, num_virtual, widened

__all__ = ["LatentReasoner", "LatentTokens", "ReasonerOutput", "ThoughtEdit", "UnsupportedModel", "final_norm"]

SCALED_HEADS = ("final_logit_softcapping", "logit_scale", "logits_scaling")


class LatentReasoner(nn.Module):
    """A backbone (any Hugging Face causal LM with a cache, with or without PEFT) that thinks in its latent slots."""

    def __init__(self, backbone: nn.Module, tokens: LatentTokens, loop: Loop | None = None) -> None:
        """Wrap ``backbone``; nothing of it is changed or copied.

        ``tokens`` holds the ids of the three markers, ``loop`` how slots are filled (default: as published).
        """
        super().__init__()
        self.backbone = backbone
        self.tokens = tokens
        self.loop = loop or Loop()
        config = self.model.config
        if odd := [name for name in SCALED_HEADS if getattr(config, name, None) not in (None, 1, 1.0)]:
            raise UnsupportedModel(
                f"{type(self.model).__name__} rescales its logits ({', '.join(odd)}), which is not supported yet"
            )
        if self.loop.segments:
            check_attention(self.model)
        self.feedback = Feedback(self.loop.projection, config.hidden_size)

    @property
    def model(self) -> PreTrainedModel:
        """The Hugging Face causal LM itself, inside a PEFT wrapper if there is one."""
        backbone: Any = self.backbone
        return cast(PreTrainedModel, backbone.get_base_model() if hasattr(backbone, "get_base_model") else backbone)

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return next(self.model.parameters()).device

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        is_closed: Tensor | None = None,
        anchors: Tensor | None = None,
        layers: Sequence[int] | None = None,
        heard: bool = False,
        edit: ThoughtEdit | None = None,
        edit_cache: CacheEdit | None = None,
        edit_residual: ResidualEdit | None = None,
    ) -> ReasonerOutput:
        """Think through every slot and, given labels, compute the loss.

        Args:
            input_ids: ``[batch, tokens]``; slots hold the id ``tokens.latent``.
            attention_mask: ``[batch, tokens]``, 0 at padding, which may stand anywhere; default: no padding.
            labels: ``[batch, tokens]``, unshifted, -100 where nothing is to be predicted.
            position_ids: ``[batch, tokens]``; default: 0, 1, ... over each row's real tokens.
            is_closed: ``[batch]``, True in rows where what follows the last slot may see the slots and itself only.
            anchors: ``[batch]``, a column after the last slot in each row, whose states of all layers are wanted.
            layers: numbers of layers whose states at the slots are wanted: 0 is the thought itself, n the state after block n
                (after the final norm, too, for the last one).
            heard: whether the thought that would follow each token is wanted.
            edit: changes thoughts before they are fed in; see :mod:`latent_lab.edits` for this and the next two.
            edit_cache: changes what the slots are remembered by, before anything after the last slot is run.
            edit_residual: changes the state after a block at a slot.
        """
        edits = Edits(edit, edit_cache, edit_residual)
        cut = Passes.cut(input_ids, attention_mask, self.tokens, position_ids, self._shape_of_passes(is_closed, edits))
        is_deep = anchors is not None or layers is not None
        rollout = Rollout(self, cut, edits, is_closed=is_closed, wants_layers=is_deep, wants_heard=heard)
        hidden_BCD = torch.cat(rollout.run(), dim=1)
        output = ReasonerOutput(None, None, 0, None, None, rollout.thoughts(hidden_BCD), cut.num_slots)
        if anchors is not None:
            output.anchored = anchored(cut, rollout.layers, anchors)
        if layers is not None:
            output.states = states_at_slots(cut, rollout.layers, layers, output.thoughts)
        if heard:
            output.heard = rollout.heard()
        if labels is not None:
            rows, columns, targets = cut.labelled(labels)
            logits_NV = self.model.get_output_embeddings()(hidden_BCD[rows, columns])
            logits_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
            output.loss_sum = nn.functional.cross_entropy(logits_NV, targets, reduction="sum") + self.feedback.nothing()
            output.num_labels = len(targets)
            output.loss = output.loss_sum / max(output.num_labels, 1)
            output.logits, output.targets = logits_NV, targets
        return output

    @torch.no_grad()
    def pause(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *, before: str, is_closed: Tensor | None = None
    ) -> "Paused | None":
        """Run prompts up to their first thought (``before="thoughts"``) or past the last slot (``before="answer"``) and stop.

        For many edits of the same prompts: what comes before them is run once. None where the loop cannot be stopped there:
        Jacobi iterations, pause tokens before their slots, prompts without slots, or with nothing after them.
        """
        cut = Passes.cut(
            input_ids, attention_mask, self.tokens, None, replace(self._shape_of_passes(None, Edits()), has_tail=True)
        )
        is_early = before == "thoughts"
        if cut.tail is None or not cut.most_slots or self.loop.rounds or (is_early and self.loop.feeds == "tokens"):
            return None
        rollout = Rollout(self, cut, Edits(), is_closed=is_closed)
        rollout.run(stop=1 if is_early else cut.tail)
        return rollout.paused

    @torch.no_grad()
    def generate(
        self,
        input_ids: "Tensor | Paused",
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        max_new_tokens: int,
        eos_token_id: int | list[int] | None = None,
        pad_token_id: int | None = None,
        edit: ThoughtEdit | None = None,
        edit_cache: CacheEdit | None = None,
        edit_residual: ResidualEdit | None = None,
        is_closed: Tensor | None = None,
        rows: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        """Think through the prompt's slots, then decode with the backbone's own ``generate`` over the filled cache.

        ``options`` go to ``generate`` as they are (sampling, beams, streamers, stopping); the default is greedy. The edits,
        ``is_closed`` and ``position_ids`` (new tokens follow the last) as in :meth:`forward`; in place of prompts, a run of
        theirs that was paused (:meth:`pause`) before the first edit. ``rows [samples]`` are the prompts to go on from, each as
        often as its number stands there: all are thought through once. Returns only the new tokens, ``[batch or samples *
        num_return_sequences, at most max_new_tokens]``.
        """
        edits, start = Edits(edit, edit_cache, edit_residual), None
        if isinstance(input_ids, Paused):
            start, cut, is_closed = input_ids, input_ids.cut, input_ids.is_closed
        else:
            cut = Passes.cut(input_ids, attention_mask, self.tokens, position_ids, self._shape_of_passes(is_closed, edits))
        rollout = Rollout(self, cut, edits, is_closed=is_closed)
        if (edit_cache or edit_residual) and not bool((cut.masks[-1][:, -1] & ~cut.is_slot[-1][:, -1]).all()):
            raise ValueError("edit_cache, edit_residual: some row ends in its last slot; end every prompt with the end marker")
        rollout.run(hold_back=True, start=start)
        if rows is not None:
            cut, is_closed = rollout.only(rows)
        ids, mask = cut.compact(pad_token_id if pad_token_id is not None else 0)
        options = {"do_sample": False, **options}
        if is_closed is not None and bool(is_closed.any()):
            if cut.tail is None:
                raise ValueError("is_closed: nothing follows the last slot; end the prompt with the end marker")
            mask = rollout.visible(mask.bool()).to(mask.dtype)
        if is_closed is not None or position_ids is not None:  # generate would count them by the mask
            options["position_ids"] = torch.cat(cut.positions, dim=1)
        if cut.ends_in_slot and self.loop.feeds == "thoughts":  # the last column is a vector, not the embedding of <|latent|>
            embeds = rollout.held_BD.new_zeros(*ids.shape, rollout.held_BD.shape[-1])
            embeds[:, -1] = rollout.held_BD
            options["inputs_embeds"] = embeds
        generate: Any = self.model.generate  # not PEFT's own, which would put virtual tokens before what the cache holds
        cache = rollout.cache if cut.widths != [1] else None
        copies = self._copies(options)
        lengths: dict[str, Any] = {"max_new_tokens": max_new_tokens, "eos_token_id": eos_token_id, "pad_token_id": pad_token_id}
        with decoding(self.loop.segments, self.model, ids.repeat_interleave(copies, dim=0), options):
            if copies == 1 and None not in lengths.values() and may_be_cut(options):
                return in_spans(generate, ids, mask, cache, **lengths, **options)
            rollout.cache.batch_repeat_interleave(copies)  # generate repeats its tensors, but not the cache
            new = generate(input_ids=ids, attention_mask=mask, past_key_values=cache, **lengths, **options)
            return new[:, ids.shape[1] :]

    def _shape_of_passes(self, is_closed: Tensor | None, edits: Edits) -> PassShape:
        is_single = self.loop.feeds == "tokens" and not self.loop.multipass
        middle = "none" if is_single else "block" if self.loop.rounds else "slots"
        return PassShape(middle, is_closed is not None or edits.cache is not None, num_virtual(self.backbone))

    def _copies(self, options: dict[str, Any]) -> int:
        """How many rows (beams or samples) ``generate`` will make of each."""
        config = options.get("generation_config") or self.model.generation_config
        return max(options.get(name) or getattr(config, name, None) or 1 for name in ("num_beams", "num_return_sequences"))


class Rollout:
    """One run through the passes."""

    def __init__(
        self,
        reasoner: LatentReasoner,
        cut: Passes,
        edits: Edits,
        *,
        is_closed: Tensor | None = None,
        wants_layers: bool = False,
        wants_heard: bool = False,
    ) -> None:
        model = reasoner.model
        if model.training and getattr(model.base_model, "gradient_checkpointing", False):
            raise ValueError("gradient checkpointing drops the key/value cache that the latent loop needs: switch it off")
        if edits.thought is not None and reasoner.loop.feeds == "tokens":
            raise ValueError("edit: pause tokens feed no thought in, so there is nothing to edit; leave it out")
        if edits.cache is not None and cut.tail is None:
            raise ValueError("edit_cache: nothing follows the last slot, so nothing would read it; end with the end marker")
        self.cut, self.edits, self.is_closed = cut, edits, is_closed
        self.wants_layers, self.wants_heard = wants_layers, wants_heard
        self.loop, self.feedback, self.backbone = reasoner.loop, reasoner.feedback, reasoner.backbone
        self.body = model.base_model
        self.norm = final_norm(model) if self.loop.feedback == "before_norm" else None
        self.embed = model.get_input_embeddings()
        self.blocks: Sequence[nn.Module] = list(blocks_of(model)) if edits.residual is not None else ()
        self.is_slot_BC = torch.cat(cut.is_slot, dim=1)
        self.cache = DynamicCache(config=model.config)
        self.gathering = gathering(self.body, len(cut.ids))
        self.fed: list[Tensor] = []
        self.layers: list[tuple[Tensor, ...]] = []  # of each pass, one for each block
        self.taken: list[Tensor] = []  # of each pass, the states that thoughts are made of
        self.held_BD: Tensor
        self.paused: Paused

    def run(self, *, hold_back: bool = False, start: "Paused | None" = None, stop: int | None = None) -> list[Tensor]:
        """Run every pass and return their states ``[B, W, D]`` (last layer, after the final norm), in order.

        ``hold_back`` leaves out the very last column, which ``generate`` runs itself, and keeps its embedding as ``held_BD``.
        With ``start`` the passes done there are left out; before pass ``stop`` the run is kept as ``paused``.
        """
        # One look at the table for all passes: its gradient is as large as the table, and would be made anew for each.
        embeds = self.embed(torch.cat(self.cut.ids, dim=1)).split(self.cut.widths, dim=1)
        if self.loop.rounds and self.cut.most_slots and self.loop.feeds == "thoughts":
            return self._run_block(self.loop.rounds, embeds, hold_back)
        states: list[Tensor] = []
        first, taken_BD, current_BD = 0, None, None
        if start is not None:
            self.cache, self.fed = copied(start.cache), list(start.fed)
            first, taken_BD, current_BD = start.done, start.taken_BD, start.current_BD
        last = len(self.cut.ids) - 1
        for j in range(first, last + 1 if stop is None else stop):
            if taken_BD is not None and self.loop.feeds == "thoughts" and j <= self.cut.most_slots:
                thought_BD, active = self._think(j - 1, taken_BD)
                self.fed.append(torch.where(active[:, None], thought_BD, 0.0))
                # Rows without this slot keep the thought they still wait to use.
                current_BD = thought_BD if current_BD is None else torch.where(active[:, None], thought_BD, current_BD)
            embeds_BWD = embeds[j]
            if current_BD is not None:
                embeds_BWD = torch.where(self.cut.is_slot[j][..., None], current_BD[:, None].to(embeds_BWD.dtype), embeds_BWD)
            if j == last and hold_back:
                embeds_BWD, self.held_BD = embeds_BWD[:, :-1], embeds_BWD[:, -1]
            if j == self.cut.tail:
                self._before_tail()
            if embeds_BWD.shape[1]:
                hidden_BWD, taken_BWD = self._forward(j, j, embeds_BWD, use_cache=last > 0 or hold_back)
                states.append(hidden_BWD)
                taken_BD = taken_BWD[:, -1]
        if stop is not None:
            self.paused = Paused(self.cut, self.is_closed, stop, self.cache, self.fed, taken_BD, current_BD)
        return states

    def _run_block(self, rounds: int, given: Sequence[Tensor], hold_back: bool) -> list[Tensor]:
        """Jacobi iterations (PCCoT): all slots at once, ``rounds`` times, each time from the states of the time before.

        The first thought is exact from the start and one more becomes so with every round; after as many rounds as slots all
        equal those of the sequential loop. A slot without a thought yet holds its own embedding; ``given`` are each pass's.
        """
        cut, last = self.cut, len(self.cut.ids) - 1
        first_BWD, taken_BWD = self._forward(0, 0, given[0], use_cache=True)
        start = first_BWD.shape[1]
        start_BD, mask_BW = taken_BWD[:, -1], cut.masks[1]
        rows, cols = cut.is_slot[1].nonzero(as_tuple=True)
        slots = cut.is_slot[1].cumsum(1)[rows, cols] - 1
        state_BKD = start_BD.new_zeros(len(start_BD), cut.most_slots, start_BD.shape[-1])
        state_BKD = state_BKD.index_put((torch.arange(len(start_BD), device=rows.device), torch.zeros_like(rows[:1])), start_BD)
        for done in range(rounds := min(rounds, cut.most_slots)):
            known = cut.most_slots if done else 1
            thoughts = [self._think(k, state_BKD[:, k]) for k in range(known)]
            self.fed = [torch.where(active[:, None], thought_BD, 0.0) for thought_BD, active in thoughts]
            filled = slots < known
            where = (rows[filled], cols[filled])
            embeds_BWD = given[1].index_put(where, torch.stack(self.fed, 1)[rows[filled], slots[filled]].to(given[1].dtype))
            if done + 1 == rounds:
                break
            taken_BWD = self._forward(1, 1, embeds_BWD, use_cache=True)[1]
            self.cache.crop(start - self.cache.get_seq_length())  # takes the columns just added away again
            self.layers, self.taken = self.layers[:1], self.taken[:1]
            before_BWD = torch.cat([start_BD[:, None], taken_BWD[:, :-1]], dim=1)
            has_before = torch.cat([torch.zeros_like(mask_BW[:, :1]), mask_BW[:, :-1]], dim=1)
            before_BWD = torch.where(has_before[..., None], before_BWD, start_BD[:, None])
            state_BKD = torch.zeros_like(state_BKD).index_put((rows, slots), before_BWD[rows, cols])
        spans = [(1, 1), (2, 2)] if cut.tail else [(1, last)]
        embeds = {1: embeds_BWD} | ({2: given[2]} if last > 1 else {})
        states = [first_BWD]
        for a, b in spans:
            embeds_BWD = torch.cat([embeds[j] for j in range(a, b + 1)], dim=1)
            if b == last and hold_back:
                embeds_BWD, self.held_BD = embeds_BWD[:, :-1], embeds_BWD[:, -1]
            if a == cut.tail:
                self._before_tail()
            if embeds_BWD.shape[1]:
                states.append(self._forward(a, b, embeds_BWD, use_cache=True)[0])
        return states

    def thoughts(self, hidden_BCD: Tensor) -> Tensor:
        """``[B, K, D]``: what was fed into each slot; for pause tokens the state before it, out of all states ``[B, C, D]``."""
        cut = self.cut
        thoughts_BKD = hidden_BCD.new_zeros(len(hidden_BCD), cut.most_slots, hidden_BCD.shape[-1])
        if self.loop.feeds == "tokens":
            rows, columns, cols = cut.before(cut.slot)
            return thoughts_BKD.index_put((rows, cut.slot.cumsum(1)[rows, cols] - 1), hidden_BCD[rows, columns])
        return torch.stack(self.fed, dim=1) if self.fed else thoughts_BKD

    def visible(self, mask_BC: Tensor) -> Tensor:
        """``[B, C]``: what of all passes the tail may see: in closed rows slots, virtual tokens and itself, else everything."""
        assert self.is_closed is not None
        slots_BC = self.is_slot_BC[:, : mask_BC.shape[1]]
        columns = torch.arange(mask_BC.shape[1], device=mask_BC.device)
        always = (columns >= sum(self.cut.widths[:-1])) | (columns < self.cut.lead)
        return mask_BC & (slots_BC | always | ~self.is_closed[:, None])

    def only(self, rows: Tensor) -> tuple[Passes, Tensor | None]:
        """Go on from these rows, each as often as it stands there; what the batch is then."""
        self.cut, self.held_BD, self.is_slot_BC = self.cut.rows(rows), self.held_BD[rows], self.is_slot_BC[rows]
        self.is_closed = None if self.is_closed is None else self.is_closed[rows]
        self.cache.batch_select_indices(rows)
        return self.cut, self.is_closed

    def _think(self, slot: int, state_BD: Tensor) -> tuple[Tensor, Tensor]:
        """The thought that a state becomes, in float32 at least, and the rows ``[B]`` that have this slot."""
        active = self.cut.num_slots > slot
        thought_BD = self._thought(state_BD)
        return (thought_BD if self.edits.thought is None else self.edits.thought(slot, thought_BD, active)), active

    def _thought(self, state: Tensor) -> Tensor:
        """What a state ``[..., D]`` becomes on its way into a slot."""
        state = state.to(torch.promote_types(state.dtype, torch.float32))
        thought = self.feedback(state.detach() if self.loop.detach else state)
        return scaled(thought, self.embed.weight) if self.loop.match_norm else thought

    def heard(self) -> Tensor:
        """``[B, T, D]``: the thought that would follow each input token; any at padding."""
        rows = torch.arange(len(self.cut.column), device=self.cut.column.device)[:, None]
        return self._thought(torch.cat(self.taken, dim=1)[rows, self.cut.column.clamp(min=0)])

    def _before_tail(self) -> None:
        """All slots are filled, nothing after them is run: what they are remembered by may still change."""
        is_alone = self.loop.alone and self.is_closed is not None and bool(self.is_closed.any())
        if not self.cut.most_slots or not (is_alone or self.edits.cache):
            return
        columns = sum(self.cut.widths[: self.cut.tail])
        slots = Slots.of(self.is_slot_BC, 0, columns)
        encoded = self._encoded_alone(slots) if is_alone else None
        for number, layer in enumerate(self.cache.layers, start=1):
            if layer.keys.shape[-2] != columns:
                raise ValueError(f"block {number} remembers a window of {layer.keys.shape[-2]} columns only: slots may be gone")
            given = [slots.taken(held, self.cut.most_slots) for held in (layer.keys, layer.values)]
            if encoded is not None:
                closed = cast(Tensor, self.is_closed)[:, None, None, None]
                given = [torch.where(closed, new, old) for new, old in zip(encoded[number - 1], given, strict=True)]
            keys, values = self.edits.cache(number, *given) if self.edits.cache else given
            layer.keys, layer.values = slots.put(layer.keys, keys), slots.put(layer.values, values)

    def _encoded_alone(self, slots: Slots) -> list[tuple[Tensor, Tensor]]:
        """Keys and values ``[B, heads, K, head]`` of each block, each slot's made of its thought and position alone."""
        fed_BKD, cache = torch.stack(self.fed, dim=1), DynamicCache(config=self.body.config)
        batch, count, width = fed_BKD.shape
        places = torch.cat(self.cut.positions, dim=1)[slots.rows, slots.columns]
        places = places.new_zeros(batch, count).index_put((slots.rows, slots.numbers), places)
        embeds = fed_BKD.to(self.embed.weight.dtype).reshape(-1, 1, width)
        self.body(inputs_embeds=embeds, position_ids=places.reshape(-1, 1), past_key_values=cache, use_cache=True)
        shaped = [(layer.keys.unflatten(0, (batch, count)), layer.values.unflatten(0, (batch, count))) for layer in cache.layers]
        return [(keys[:, :, :, 0].transpose(1, 2), values[:, :, :, 0].transpose(1, 2)) for keys, values in shaped]

    def _forward(self, first: int, last: int, embeds_BWD: Tensor, *, use_cache: bool) -> tuple[Tensor, Tensor]:
        """Run passes ``first`` to ``last`` as one; states ``[B, W, D]`` after the final norm, and where thoughts are taken."""
        cut, width = self.cut, embeds_BWD.shape[1]
        before = sum(cut.widths[:first])
        mask_BC = torch.cat(cut.masks[: last + 1], dim=1)[:, : before + width]
        if last == cut.tail and self.is_closed is not None:
            mask_BC = self.visible(mask_BC)
        # Without mask and cache, transformers takes any jump in the positions for the border of packed sequences.
        mask = None if use_cache and bool(mask_BC.all()) else mask_BC.long()
        if self.loop.segments:
            ids_BC = torch.cat(cut.ids[: last + 1], dim=1)[:, : before + width]
            mask = added(self.loop.segments, ids_BC, mask_BC, width, embeds_BWD.dtype)
        if cut.lead and not first:
            embeds_BWD, use_cache = begun(self.backbone, embeds_BWD, self.cache), True
        left = width - embeds_BWD.shape[1]  # virtual tokens that are keys and values alone have no states
        if left == width:
            return (nothing := widened(embeds_BWD, left)), nothing
        taken: list[Tensor] = []
        hook = self.norm.register_forward_pre_hook(lambda _, given: taken.append(given[0])) if self.norm is not None else None
        residual = self.edits.residual
        at = Slots.of(self.is_slot_BC, before, width) if residual is not None else None
        try:
            edited = edited_blocks(self.blocks, at, residual) if residual is not None and at is not None else nullcontext()
            with edited, self.gathering:
                out = self.body(
                    inputs_embeds=embeds_BWD,
                    attention_mask=mask,
                    position_ids=torch.cat(cut.positions[first : last + 1], dim=1)[:, left:width],
                    past_key_values=self.cache if use_cache else None,
                    use_cache=use_cache,
                    **({"output_hidden_states": True} if self.wants_layers else {}),
                )
        finally:
            if hook is not None:
                hook.remove()
        if self.wants_layers:
            self.layers.append(tuple(widened(each, left) for each in out.hidden_states[1:]))
        states = widened(out.last_hidden_state, left)
        taken_BWD = widened(taken[0], left) if taken else states
        if self.wants_heard:
            self.taken.append(taken_BWD)
        return states, taken_BWD
