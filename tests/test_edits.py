"""Edits at inference: what is put in a place is what later columns read; putting back what was there changes nothing."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from latent_lab import LatentReasoner
from latent_lab.edits import Recorder
from latent_lab.feedback import UnsupportedModel, blocks_of
from latent_lab.loop import Loop
from latent_lab.sequences import IGNORE
from tests.test_reasoner import BUILDS, PADDINGS, TOKENS, B, E, L, build, continued, padded

ENDED = [
    [5, 6, B, L, L, E],
    [9, L, 3, 4, L, 5, L, E, 2],  # text between slots and after the end
    [4, 5, 6, B, E],  # no slot
    [2, L, L, L, L, E],
]
KINDS = ("edit", "edit_cache", "edit_residual")
LENGTH = 4


def edits_of(kept: Recorder) -> dict[str, Any]:
    """For each kind the edit that puts in what was recorded."""
    return {
        "edit": lambda slot, thoughts, active: kept.thoughts[slot],
        "edit_cache": lambda block, keys, values: (kept.keys[block], kept.values[block]),
        "edit_residual": lambda slot, block, states, active: kept.residuals[slot, block],
    }


def recording(loop: Loop | None = None) -> tuple[Recorder, dict[str, Any]]:
    kept = Recorder()
    edits: dict[str, Any] = {"edit": kept.thought, "edit_cache": kept.cache, "edit_residual": kept.residual}
    return kept, {name: edit for name, edit in edits.items() if name != "edit" or (loop or Loop()).feeds == "thoughts"}


def closed(is_closed: bool, rows: list[list[int]] = ENDED) -> Tensor | None:
    return torch.tensor([True] * len(rows)) if is_closed else None


@pytest.mark.parametrize("loop", [Loop(), Loop(rounds=4), Loop(feeds="tokens"), Loop(feeds="tokens", multipass=True)], ids=str)
@pytest.mark.parametrize("is_closed", [False, True])
@pytest.mark.parametrize(("name", "how"), [("gpt2", "left"), ("gpt2", "right"), ("llama", "middle")])
def test_a_swap_with_itself_is_the_identity_for_every_kind(name: str, how: str, is_closed: bool, loop: Loop) -> None:
    reasoner = LatentReasoner(build(name), TOKENS, loop)
    ids, mask, labels = padded(ENDED, how, [[*row[1:], 3] for row in ENDED])
    clean = reasoner(ids, mask, labels, is_closed=closed(is_closed))
    written = reasoner.generate(ids, mask, max_new_tokens=LENGTH, is_closed=closed(is_closed))
    kept, edits = recording(loop)
    seen = reasoner(ids, mask, labels, is_closed=closed(is_closed), **edits)
    torch.testing.assert_close(seen.logits, clean.logits, atol=1e-5, rtol=0)
    assert len(kept.keys) == 2
    assert len(kept.residuals) == 8
    for kind in edits:
        back = {kind: edits_of(kept)[kind]}
        same = reasoner(ids, mask, labels, is_closed=closed(is_closed), **back)
        torch.testing.assert_close(same.logits, clean.logits, atol=1e-5, rtol=0)
        torch.testing.assert_close(same.thoughts, clean.thoughts, atol=1e-5, rtol=0)
        assert torch.equal(reasoner.generate(ids, mask, max_new_tokens=LENGTH, is_closed=closed(is_closed), **back), written)


def test_in_the_same_passes_it_is_so_to_the_last_bit() -> None:
    reasoner, (ids, mask, labels) = LatentReasoner(build(), TOKENS), padded(ENDED, "left", ENDED)
    options = {"is_closed": closed(True)}
    clean = reasoner(ids, mask, labels, **options)
    kept, edits = recording()
    reasoner(ids, mask, labels, **options, **edits)
    for kind in KINDS:
        same = reasoner(ids, mask, labels, **options, **{kind: edits_of(kept)[kind]})
        assert torch.equal(same.logits, clean.logits)


def test_what_is_recorded_is_what_the_forward_returns() -> None:
    reasoner, (ids, mask) = LatentReasoner(build("llama"), TOKENS), padded(ENDED, "both")
    kept, edits = recording()
    out = reasoner(ids, mask, layers=(0, 1, 2), **edits)
    for row, has in enumerate(out.num_slots.tolist()):
        for slot in range(has):
            torch.testing.assert_close(kept.thoughts[slot][row], out.thoughts[row, slot])
            torch.testing.assert_close(kept.residuals[slot, 1][row], out.states[row, slot, 1])
            last = reasoner.model.base_model.norm(kept.residuals[slot, 2][row])  # the last block's is taken before the norm
            torch.testing.assert_close(last, out.states[row, slot, 2])
    assert kept.keys[1].shape == (4, 2, 4, 8)
    assert not kept.keys[1][0, :, 2:].any()
    assert not kept.rows(torch.tensor([2, 0])).keys[2][0].any()
    assert torch.equal(kept.rows(torch.tensor([3])).residuals[3, 1][0], kept.residuals[3, 1][3])


# The definition: one row, every step written out


def states_with(model: PreTrainedModel, embeds: Tensor, swaps: dict[tuple[int, int], Tensor]) -> Tensor:
    """Last states ``[n, width]`` of one row, in one forward; ``swaps[column, block]`` replace what the block returns."""
    handles = []
    for number, block in enumerate(blocks_of(model), start=1):

        def hook(module: Any, given: Any, out: Any, number: int = number) -> Any:
            first = (out[0] if isinstance(out, tuple) else out).clone()
            for (column, at), vector in swaps.items():
                if at == number and column < first.shape[1]:
                    first[0, column] = vector
            return (first, *out[1:]) if isinstance(out, tuple) else first

        handles.append(block.register_forward_hook(hook))
    states = model.base_model(inputs_embeds=embeds).last_hidden_state[0]
    for handle in handles:
        handle.remove()
    return states


@pytest.mark.parametrize("name", BUILDS)
@pytest.mark.parametrize("block", [1, 2])
@torch.no_grad()
def test_an_edited_residual_goes_on_from_there(name: str, block: int) -> None:
    model, vector = build(name), torch.linspace(-2, 2, 32)
    want = []
    for row in ENDED:
        places = [i for i, token in enumerate(row) if token == L]
        swaps = {(places[1], block): vector} if len(places) > 1 else {}
        embeds = model.get_input_embeddings()(torch.tensor([row]))
        for at in places:
            embeds[0, at] = states_with(model, embeds[:, :at], swaps)[-1]
        want.append(model.get_output_embeddings()(states_with(model, embeds, swaps)[-1]))
    seen = []

    def edit(slot: int, number: int, states: Tensor, active: Tensor) -> Tensor:
        seen.append((slot, number, active.tolist()))
        return vector.expand_as(states) if (slot, number) == (1, block) else states

    ids, mask, labels = padded(ENDED, "left", [[-100] * (len(row) - 1) + [1] for row in ENDED], extra=1)
    ids, mask = torch.cat([ids, ids[:, :1] * 0 + 1], 1), torch.cat([mask, mask[:, :1] * 0 + 1], 1)
    labels = torch.cat([torch.full_like(ids[:, :-1], -100), ids[:, -1:]], 1)
    out = LatentReasoner(model, TOKENS)(ids, mask, labels, edit_residual=edit)
    torch.testing.assert_close(out.logits, torch.stack(want), atol=1e-4, rtol=1e-4)
    assert {(slot, tuple(active)) for slot, number, active in seen if number == 1} >= {(3, (False, False, False, True))}
    new = LatentReasoner(model, TOKENS).generate(*padded(ENDED, "left"), max_new_tokens=1, edit_residual=edit)
    assert new[:, 0].tolist() == torch.stack(want).argmax(-1).tolist()


@pytest.mark.parametrize("name", BUILDS)
@pytest.mark.parametrize("how", PADDINGS)
@torch.no_grad()
def test_an_edited_cache_is_what_the_columns_after_the_slots_read(name: str, how: str) -> None:
    model, reasoner = build(name), LatentReasoner(build(name), TOKENS)
    want = []
    for row in ENDED:
        places = [i for i, token in enumerate(row) if token == L]
        end = places[-1] + 1 if places else len(row) - 1
        embeds = model.get_input_embeddings()(torch.tensor([row]))
        for slot, thought in enumerate(reasoner(torch.tensor([row])).thoughts[0]):
            embeds[0, places[slot]] = thought
        cache = DynamicCache(config=model.config)
        model.base_model(inputs_embeds=embeds[:, :end], past_key_values=cache)
        for held in cache.layers:
            held.keys[:, :, places[:2]] *= -1
            held.values[:, :, places[:2]] += 1
        states = model.base_model(inputs_embeds=embeds[:, end:], past_key_values=cache).last_hidden_state[0]
        want.append(int(model.get_output_embeddings()(states[-1]).argmax()))

    def edit(block: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        first = (torch.arange(keys.shape[2]) < 2)[:, None]
        return torch.where(first, -keys, keys), torch.where(first, values + 1, values)

    ids, mask = padded(ENDED, how)
    got = reasoner.generate(ids, mask, max_new_tokens=1, edit_cache=edit)[:, 0].tolist()
    assert got == want
    assert got != [continued(model, row, 1)[0] for row in ENDED]
    clean, edited = reasoner(ids, mask), reasoner(ids, mask, edit_cache=edit)
    torch.testing.assert_close(edited.thoughts, clean.thoughts, atol=1e-5, rtol=0)  # all thoughts are thought by then
    beams = reasoner.generate(ids, mask, max_new_tokens=1, edit_cache=edit, num_beams=2, num_return_sequences=2)
    assert beams[::2, 0].tolist() == want


def test_an_edit_of_the_forward_is_that_of_generation() -> None:
    reasoner, (ids, mask) = LatentReasoner(build(), TOKENS), padded(ENDED, "right")
    out = reasoner(ids, mask, edit=lambda slot, thoughts, active: torch.full_like(thoughts, slot + 1.0))
    assert out.thoughts[3, :, 0].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert out.thoughts[0, :, 0].tolist() == [1.0, 2.0, 0.0, 0.0]


def test_no_hook_stays_behind_even_if_an_edit_fails() -> None:
    model = build()
    reasoner, (ids, mask) = LatentReasoner(model, TOKENS), padded(ENDED, "left")
    reasoner(ids, mask, edit_residual=lambda slot, block, states, active: states)

    def fails(slot: int, block: int, states: Tensor, active: Tensor) -> Tensor:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match=r"^no$"):
        reasoner.generate(ids, mask, max_new_tokens=1, edit_residual=fails)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_what_is_refused() -> None:
    reasoner = LatentReasoner(build(), TOKENS)
    ids, mask = padded([*ENDED, [1, L]], "left")
    identity = {"edit_cache": lambda block, keys, values: (keys, values), "edit_residual": lambda slot, block, states, a: states}
    for kind, edit in identity.items():
        with pytest.raises(ValueError, match="end every prompt with the end marker"):
            reasoner.generate(ids, mask, max_new_tokens=1, **{kind: edit})
    with pytest.raises(ValueError, match="nothing follows the last slot"):
        reasoner(torch.tensor([[1, 2, L]]), edit_cache=identity["edit_cache"])
    paused = LatentReasoner(build(), TOKENS, Loop(feeds="tokens"))
    with pytest.raises(ValueError, match="pause tokens feed no thought in"):
        paused(ids, mask, edit=lambda slot, thoughts, active: thoughts)
    blocks = blocks_of(model := build())
    model.config.num_hidden_layers = 5
    with pytest.raises(UnsupportedModel, match="its 5 blocks could not be found"):
        blocks_of(model)
    assert len(blocks) == 2


def test_without_slots_there_is_nothing_to_edit() -> None:
    reasoner, ids = LatentReasoner(build(), TOKENS), torch.tensor([[4, 5, B, E]])

    def never(*given: Any) -> Any:
        raise AssertionError

    clean = reasoner.generate(ids, max_new_tokens=3)
    assert torch.equal(reasoner.generate(ids, max_new_tokens=3, edit_cache=never, edit_residual=never, edit=never), clean)


@pytest.mark.parametrize("is_closed", [False, True])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_run_that_was_paused_goes_on_as_if_it_had_not_been(name: str, is_closed: bool) -> None:
    """More than once, in any order of rows, and with edits of what comes after the pause."""
    reasoner, (ids, mask) = LatentReasoner(build(name), TOKENS), padded(ENDED, "both")
    options: dict[str, Any] = {"max_new_tokens": LENGTH}
    turned = torch.tensor([3, 0, 0, 2])
    early = reasoner.pause(ids, mask, before="thoughts", is_closed=closed(is_closed))
    late = reasoner.pause(ids, mask, before="answer", is_closed=closed(is_closed))
    assert early is not None
    assert late is not None
    edits: dict[str, Any] = {
        "edit": lambda slot, thoughts, active: thoughts * 0 if slot == 1 else thoughts,
        "edit_cache": lambda block, keys, values: (keys, values * 0),
        "edit_residual": lambda slot, block, states, active: states * 0 if block == 1 else states,
    }
    for paused, usable in ((early, edits), (late, {"edit_cache": edits["edit_cache"]})):
        for one in ({}, *({kind: edit} for kind, edit in usable.items())):
            want = reasoner.generate(ids, mask, is_closed=closed(is_closed), **one, **options)
            assert torch.equal(reasoner.generate(paused, **one, **options), want)
            assert torch.equal(reasoner.generate(paused.rows(turned), **one, **options), want[turned])


def test_a_run_that_cannot_be_paused() -> None:
    model, (ids, mask) = build(), padded(ENDED, "right")
    paused = LatentReasoner(model, TOKENS, Loop(feeds="tokens"))
    assert paused.pause(ids, mask, before="thoughts") is None
    late = paused.pause(ids, mask, before="answer")
    assert torch.equal(paused.generate(late, max_new_tokens=3), paused.generate(ids, mask, max_new_tokens=3))
    assert LatentReasoner(model, TOKENS, Loop(rounds=2)).pause(ids, mask, before="answer") is None
    assert LatentReasoner(model, TOKENS).pause(torch.tensor([[1, 2, E]]), before="answer") is None


# Slots that are read alone: what follows them sees each as its thought makes it


def alone_by_hand(model: PreTrainedModel, row: list[int], thoughts: Tensor) -> Tensor:
    """Logits of a row run in one pass, with a mask by which slots see themselves alone in the eyes of what follows them.

    The row's slots are there twice: as they are while thinking, for the prefix and each other, is not needed any more once the
    thoughts are known; so here they see themselves only, and what follows sees them and itself.
    """
    slot = torch.tensor([token == L for token in row])
    last = int(slot.nonzero()[-1])
    embeds = model.get_input_embeddings()(torch.tensor([row]))
    embeds[0, slot] = thoughts
    count = len(row)
    sees = torch.ones(count, count).tril().bool()
    sees[slot] = torch.eye(count).bool()[slot]
    sees[last + 1 :, : last + 1] = slot[: last + 1]
    return model(inputs_embeds=embeds, attention_mask=sees[None, None]).logits[0, last + 1 :]


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("how", PADDINGS)
def test_what_follows_sees_each_thought_alone(name: str, how: str) -> None:
    rows = [[5, 6, B, L, L, E, 7, 8], [4, 9, 3, B, L, L, L, E, 2], [2, L, L, L, L, E, 1, 3]]
    model = build(name)
    reasoner = LatentReasoner(model, TOKENS, Loop(alone=True))
    ids, mask, labels = padded(rows, how, [[IGNORE] * (row.index(E) + 1) + row[row.index(E) + 1 :] for row in rows])
    out = reasoner(ids, mask, labels, is_closed=closed(True, rows))
    by_hand = [alone_by_hand(model, row, out.thoughts[i, : row.count(L)])[:-1] for i, row in enumerate(rows)]
    torch.testing.assert_close(out.logits, torch.cat(by_hand), atol=2e-5, rtol=1e-4)


def test_open_rows_beside_closed_ones_are_as_ever() -> None:
    model, rows = build(), [[5, 6, B, L, L, E, 7, 8], [5, 6, B, L, L, E, 7, 8]]
    ids, mask, labels = padded(rows, "left", rows)
    mixed = LatentReasoner(model, TOKENS, Loop(alone=True))(ids, mask, labels, is_closed=torch.tensor([False, True]))
    open_ = LatentReasoner(model, TOKENS)(ids, mask, labels)
    torch.testing.assert_close(mixed.logits[: len(open_.logits) // 2], open_.logits[: len(open_.logits) // 2])
    assert not torch.allclose(mixed.logits[-1], open_.logits[-1])


def test_exchanging_what_a_slot_is_remembered_by_is_exchanging_its_thought() -> None:
    rows = [[5, 6, B, L, L, E, 7], [4, 9, B, L, L, E, 7]]
    reasoner = LatentReasoner(build(), TOKENS, Loop(alone=True))
    ids, mask, labels = padded(rows, "left", rows)
    kept = Recorder()
    clean = reasoner(ids, mask, labels, is_closed=closed(True, rows), edit_cache=kept.cache)
    other = kept.rows(torch.tensor([1, 0]))

    def first_slot(block: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        return (torch.cat([other.keys[block][:, :, :1], keys[:, :, 1:]], dim=2),
                torch.cat([other.values[block][:, :, :1], values[:, :, 1:]], dim=2))  # fmt: skip

    edited = reasoner(ids, mask, labels, is_closed=closed(True, rows), edit_cache=first_slot)
    mixed = torch.stack([clean.thoughts[[1, 0], 0], clean.thoughts[:, 1]], dim=1)
    by_hand = torch.stack([alone_by_hand(reasoner.model, row, mixed[i])[0] for i, row in enumerate(rows)])
    last = edited.logits.view(2, -1, edited.logits.shape[-1])[:, -1]
    torch.testing.assert_close(last, by_hand, atol=2e-5, rtol=1e-4)


def test_gradients_reach_what_the_thoughts_were_made_of() -> None:
    reasoner, rows = LatentReasoner(build(), TOKENS, Loop(alone=True)), [[5, 6, B, L, L, E, 7]]
    ids, mask, labels = padded(rows, "left", [[IGNORE] * 6 + [7]])
    reasoner(ids, mask, labels, is_closed=closed(True, rows)).loss.backward()
    table = reasoner.model.get_input_embeddings().weight.grad
    assert table is not None
    assert table[5].abs().sum() > 0, "the answer depends on the question through the thoughts alone"


def test_pause_tokens_cannot_be_read_alone() -> None:
    with pytest.raises(ValueError, match="alone=True: pause tokens feed no thought in"):
        Loop(feeds="tokens", alone=True)
