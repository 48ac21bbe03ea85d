"""The latent loop equals its definition: run the whole growing prefix again for every slot, without a cache."""

import random
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import peft
import pytest
import torch
from torch import Tensor, nn
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from latent_lab import LatentReasoner, LatentTokens
from latent_lab.loop import Loop
from latent_lab.sequences import IGNORE

VOCABULARY, PAD = 24, 0
B, L, E = 20, 21, 22  # start marker, latent, end marker
TOKENS = LatentTokens(start=B, latent=L, end=E)

ROWS = [
    [5, 6, B, L, L, E, 7, 8],  # as Coconut lays it out
    [9, L, 3, 4, L, 5, L, 2],  # text between slots
    [4, 5, 6, 7, 8, 9, 10],  # no slot
    [1, 2, B, L],  # ends in a slot
    [3],  # one token
    [2, L, L, L, L, E, 1],
]
PADDINGS = ("right", "left", "both", "middle")

SMALL = {"vocab_size": VOCABULARY, "bos_token_id": None, "eos_token_id": None, "initializer_range": 0.3}
GROUPED = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": None,
}
BUILDS: dict[str, Callable[[], PreTrainedModel]] = {
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(**SMALL, n_positions=64, n_embd=32, n_layer=2, n_head=4, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)
    ),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SMALL, **GROUPED, tie_word_embeddings=False)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SMALL, **GROUPED, tie_word_embeddings=True)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SMALL, **GROUPED, head_dim=8, tie_word_embeddings=False)),
}


def build(kind: str = "gpt2") -> PreTrainedModel:
    torch.manual_seed(0)
    return BUILDS[kind]().eval()


@pytest.fixture(params=list(BUILDS))
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return build(request.param)


# The definition


def states_of(model: PreTrainedModel, embeds: Tensor, positions: list[int]) -> Tensor:
    """Last states ``[n, width]`` of one row, in one forward under an explicit causal mask."""
    n = embeds.shape[1]
    causal = torch.full((1, 1, n, n), torch.finfo(embeds.dtype).min, dtype=embeds.dtype).triu(1)
    ids = torch.tensor([positions])
    return model.base_model(inputs_embeds=embeds, attention_mask=causal, position_ids=ids, use_cache=False).last_hidden_state[0]


def think(
    model: PreTrainedModel, row: list[int], *, written: int = 0, positions: list[int] | None = None, edit: Any = None
) -> tuple[Tensor, list[Tensor]]:
    """States and thoughts of one row; its last ``written`` tokens hold no slots. ``edit(slot, thought)`` changes a thought."""
    positions = positions or list(range(len(row)))
    embeds = model.get_input_embeddings()(torch.tensor([row]))
    thoughts: list[Tensor] = []
    for at in [i for i, token in enumerate(row[: len(row) - written]) if token == L]:
        thought = states_of(model, embeds[:, :at], positions[:at])[-1]
        thought = edit(len(thoughts), thought) if edit else thought
        embeds = torch.cat([embeds[:, :at], thought[None, None], embeds[:, at + 1 :]], dim=1)
        thoughts.append(thought)
    return states_of(model, embeds, positions), thoughts


def defined(
    model: PreTrainedModel, rows: list[list[int]], labels: list[list[int]], positions: list[list[int]] | None = None
) -> tuple[Tensor, list[list[Tensor]], Tensor]:
    """Mean loss, thoughts of every row, and logits of the labelled tokens."""
    logits, targets, thoughts = [], [], []
    for i, (row, wanted) in enumerate(zip(rows, labels, strict=True)):
        states, thought = think(model, row, positions=positions[i] if positions else None)
        thoughts.append(thought)
        for at in range(1, len(row)):
            if wanted[at] != IGNORE:
                logits.append(model.get_output_embeddings()(states[at - 1]))
                targets.append(wanted[at])
    stacked = torch.stack(logits)
    return nn.functional.cross_entropy(stacked, torch.tensor(targets)), thoughts, stacked


@torch.no_grad()
def continued(model: PreTrainedModel, row: list[int], length: int, *, edit: Any = None, never: tuple[int, ...] = ()) -> list[int]:
    """The greedy continuation of a prompt, every step from scratch."""
    new: list[int] = []
    for _ in range(length):
        states, _ = think(model, row + new, written=len(new), edit=edit)
        logits = model.get_output_embeddings()(states[-1])
        logits[list(never)] = -torch.inf
        new.append(int(logits.argmax()))
    return new


# Batches


def columns_of(length: int, width: int, how: str) -> list[int]:
    """Which columns a row's tokens take."""
    spare = width - length
    first = {"right": 0, "left": spare, "both": spare // 2, "middle": 0}[how]
    return [first + i + (spare if how == "middle" and i >= (length + 1) // 2 else 0) for i in range(length)]


def batch_of(rows: list[list[int]], columns: list[list[int]], width: int, *others: list[list[int]]) -> list[Tensor]:
    """Ids, mask, and whatever else the rows hold, as ``[rows, width]``; padding holds slots and labels, which must not count."""
    ids, mask = torch.full((len(rows), width), L), torch.zeros(len(rows), width, dtype=torch.long)
    more = [torch.full((len(rows), width), 1) for _ in others]
    for i, at in enumerate(columns):
        for tensor, values in ((ids, rows), *zip(more, others, strict=True)):
            tensor[i, at] = torch.tensor(values[i])
        mask[i, at] = 1
    return [ids, mask, *more]


def padded(rows: list[list[int]], how: str, *others: list[list[int]], extra: int = 0) -> list[Tensor]:
    width = max(map(len, rows)) + extra
    return batch_of(rows, [columns_of(len(row), width, how) for row in rows], width, *others)


def some_labels(rows: list[list[int]], seed: int = 0) -> list[list[int]]:
    """A label on every other token or so, anywhere in a row: first tokens, slots and markers included."""
    rng = random.Random(seed)
    return [[rng.randrange(VOCABULARY) if rng.random() < 0.6 else IGNORE for _ in row] for row in rows]


def drawn(seed: int) -> tuple[list[list[int]], list[list[int]], list[list[int]], int]:
    """Random rows with random slots, their labels, and random columns for them."""
    rng = random.Random(seed)
    width = rng.randint(6, 12)
    rows = [[L if j and rng.random() < 0.3 else rng.randrange(1, 20) for j in range(rng.randint(2, width))] for _ in range(4)]
    return rows, some_labels(rows, seed), [sorted(rng.sample(range(width), len(row))) for row in rows], width


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}


def assert_same_gradients(got: dict[str, Tensor], want: dict[str, Tensor], tolerance: float = 2e-5) -> None:
    assert got.keys() == want.keys()
    off = {
        n: float((got[n] - want[n]).norm())
        for n in want
        if (got[n] - want[n]).norm() > tolerance * want[n].norm() + tolerance / 10
    }
    assert not off


def assert_as_defined(
    model: PreTrainedModel,
    rows: list[list[int]],
    labels: list[list[int]],
    tensors: Sequence[Tensor | None],
    positions: list[list[int]] | None = None,
    tolerance: float = 2e-5,
) -> None:
    """Loss, logits, thoughts and every gradient (of the loss and of the thoughts themselves) are those of the definition."""
    loss, thoughts, logits = defined(model, rows, labels, positions)
    want = gradients(model, loss + 0.01 * sum((t.square().sum() for row in thoughts for t in row), torch.zeros(())))
    out = LatentReasoner(model, TOKENS)(*tensors)
    assert out.num_slots.tolist() == [row.count(L) for row in rows]
    assert out.num_labels == len(logits)
    assert torch.isclose(out.loss, loss, rtol=tolerance, atol=0)
    assert torch.allclose(out.logits, logits, atol=tolerance * 10, rtol=0)
    assert out.thoughts.shape == (len(rows), max(row.count(L) for row in rows), 32)
    for i, row in enumerate(thoughts):
        for slot, thought in enumerate(row):
            assert torch.allclose(out.thoughts[i, slot], thought, atol=tolerance * 10, rtol=0)
        assert not out.thoughts[i, len(row) :].any()
    got = gradients(model, out.loss + 0.01 * out.thoughts.square().sum())
    assert_same_gradients(got, want, tolerance)


# Forward


@pytest.mark.parametrize("how", PADDINGS)
def test_loss_thoughts_and_gradients_are_those_of_running_every_prefix_again(model: PreTrainedModel, how: str) -> None:
    labels = some_labels(ROWS)
    assert labels[1][0] != IGNORE  # the label of a first token, which nothing predicts
    assert labels[1][2] != IGNORE  # of the token after a slot
    assert labels[0][4] != IGNORE  # of a slot
    ids, mask, wanted = padded(ROWS, how, labels, extra=2)
    assert_as_defined(model, ROWS, labels, [ids, mask, wanted])


@pytest.mark.parametrize("seed", range(12))
def test_they_are_for_any_rows_slots_labels_and_padding(seed: int) -> None:
    rows, labels, columns, width = drawn(seed)
    ids, mask, wanted = batch_of(rows, columns, width, labels)
    assert_as_defined(build(list(BUILDS)[seed % 4]), rows, labels, [ids, mask, wanted])


def test_in_double_precision_they_agree_to_ten_digits() -> None:
    labels = some_labels(ROWS)
    assert_as_defined(build().double(), ROWS, labels, padded(ROWS, "middle", labels), tolerance=1e-10)


def test_they_agree_under_eager_attention() -> None:
    model = build()
    model.set_attn_implementation("eager")
    labels = some_labels(ROWS)
    assert_as_defined(model, ROWS, labels, padded(ROWS, "both", labels))


def test_positions_can_be_given(model: PreTrainedModel) -> None:
    positions = [[3 * i % 17 for i in range(len(row))] for row in ROWS]
    labels = some_labels(ROWS)
    ids, mask, wanted, where = padded(ROWS, "middle", labels, positions)
    assert_as_defined(model, ROWS, labels, [ids, mask, wanted, where], positions)


@pytest.mark.parametrize("rows", [[[1, 2, 3, 4, 5, 6]], [[1, 2, 3, L, 5, 6]]], ids=["without slots", "with a slot"])
def test_positions_that_jump_are_no_border_between_sequences(model: PreTrainedModel, rows: list[list[int]]) -> None:
    positions, labels = [[0, 1, 5, 6, 2, 9]], [[1, 2, 3, 4, 5, 6]]
    tensors = [torch.tensor(rows), torch.ones(1, 6), torch.tensor(labels), torch.tensor(positions)]
    assert_as_defined(model, rows, labels, tensors, positions)


def test_without_a_mask_every_token_is_real() -> None:
    rows = [[1, 2, L, 3, L, 4], [5, L, 6, 7, 8, 9]]
    labels = some_labels(rows)
    assert_as_defined(build(), rows, labels, [torch.tensor(rows), None, torch.tensor(labels)])


def test_a_row_of_one_token_spoils_nobody_elses_gradient() -> None:
    rows, labels = [[1, 2, L, L, 3], [4]], [[IGNORE, IGNORE, IGNORE, IGNORE, 3], [4]]
    model = build()
    ids, mask, wanted = padded(rows, "right", labels)
    alone = gradients(model, LatentReasoner(model, TOKENS)(ids[:1], mask[:1], wanted[:1]).loss)
    assert_same_gradients(gradients(model, LatentReasoner(model, TOKENS)(ids, mask, wanted).loss), alone)


def test_the_loss_is_the_mean_over_labelled_tokens_that_have_a_token_before_them() -> None:
    rows = [[1, 2, L, 3, 4], [5, 6, 7, 8, 9]]
    labels = [[9, IGNORE, IGNORE, 3, 4], [IGNORE, 6, 7, IGNORE, IGNORE]]
    out = LatentReasoner(build(), TOKENS)(torch.tensor(rows), None, torch.tensor(labels))
    chosen = out.logits.log_softmax(-1)[range(4), [3, 4, 6, 7]]
    assert out.num_labels == 4
    assert out.targets.tolist() == [3, 4, 6, 7]
    assert torch.isclose(out.loss_sum, -chosen.sum())
    assert torch.isclose(out.loss, -chosen.mean())


def test_without_any_label_the_loss_is_zero_and_without_labels_there_is_none() -> None:
    reasoner, ids = LatentReasoner(build(), TOKENS), torch.tensor([[1, L, 2]])
    none, zero = reasoner(ids), reasoner(ids, None, torch.full_like(ids, IGNORE))
    assert (none.loss, none.loss_sum, none.logits, none.targets, none.num_labels) == (None, None, None, None, 0)
    assert (zero.loss.item(), zero.loss_sum.item(), zero.num_labels, zero.logits.shape) == (0, 0, 0, (0, VOCABULARY))
    assert torch.equal(none.thoughts, zero.thoughts)


def test_thoughts_are_zero_past_a_rows_slots() -> None:
    ids, mask = padded(ROWS, "left")
    out = LatentReasoner(build(), TOKENS)(ids, mask)
    assert out.num_slots.tolist() == [2, 3, 0, 1, 0, 4]
    assert out.thoughts.shape == (6, 4, 32)
    assert out.thoughts.ne(0).any(-1).sum(-1).tolist() == [2, 3, 0, 1, 0, 4]


@pytest.mark.parametrize("how", PADDINGS)
def test_nothing_changes_with_the_order_of_rows_more_padding_or_rows_apart(how: str) -> None:
    reasoner, labels = LatentReasoner(build("qwen3"), TOKENS), some_labels(ROWS)
    whole = reasoner(*padded(ROWS, how, labels))
    order = [4, 2, 0, 5, 3, 1]
    turned = reasoner(*padded([ROWS[i] for i in order], how, [labels[i] for i in order]))
    wider = reasoner(*padded(ROWS, how, labels, extra=5))
    apart = [reasoner(*padded([row], how, [wanted])) for row, wanted in zip(ROWS, labels, strict=True)]
    for other in (turned.thoughts, wider.thoughts[order]):
        assert torch.allclose(other, whole.thoughts[order], atol=1e-5)
    for i, single in enumerate(apart):
        assert torch.allclose(single.thoughts[0], whole.thoughts[i, : ROWS[i].count(L)], atol=1e-5)
    for total in (turned.loss_sum, wider.loss_sum, sum(single.loss_sum for single in apart)):
        assert torch.isclose(total, whole.loss_sum, rtol=1e-5)
    assert torch.allclose(wider.logits, whole.logits, atol=1e-4)
    assert torch.allclose(torch.cat([single.logits for single in apart]), whole.logits, atol=1e-4)


def widths_of(rows: list[list[int]]) -> list[int]:
    """Columns of each forward of the backbone."""
    model, widths = build(), []
    model.base_model.register_forward_pre_hook(
        lambda _, __, given: widths.append(given["inputs_embeds"].shape[1]), with_kwargs=True
    )
    LatentReasoner(model, TOKENS)(*padded(rows, "right"))
    return widths


def test_slots_cost_a_pass_of_one_column_each_and_the_rest_two() -> None:
    assert widths_of([[1, 2, 3, L, L, L, 4, 5]]) == [3, 1, 1, 3]
    assert widths_of([[1, 2, 3]]) == [3]


def test_unequal_slots_and_rows_without_any_add_no_columns() -> None:
    assert widths_of([[1, 2, 3, L, L, L, 4, 5], [1, L, 2, 3]]) == [3, 1, 1, 3]
    assert widths_of([[1, 2, 3, L, L, L, 4, 5], [1, 2, 3, 4, 5, 6]]) == [3, 1, 1, 3]
    assert widths_of([[1, 2, 3, L, L, L, 4, 5], [1, 2, 3, 4, 5, 6, 7, 8]]) == [5, 1, 1, 3]


def test_training_mode_without_dropout_changes_nothing() -> None:
    model, labels = build(), some_labels(ROWS)
    assert_as_defined(model.train(), ROWS, labels, padded(ROWS, "left", labels))
    assert model.training


# Without slots


@pytest.mark.parametrize("how", ["right", "left"])
def test_without_slots_it_is_the_backbone(model: PreTrainedModel, how: str) -> None:
    rows = [[1, 2, 3, 4, 5], [6, 7, 8], [9, 10, 11, 12]]
    labels = [[*row[:2], IGNORE, *row[3:]] for row in rows]
    ids, mask, wanted = padded(rows, how, labels)
    ids, wanted = ids.masked_fill(mask == 0, PAD), wanted.masked_fill(mask == 0, IGNORE)
    wanted[range(3), mask.argmax(1)] = IGNORE  # a left-padded row's first token would be predicted from padding
    places = (mask.cumsum(1) - 1).clamp(min=0)
    want = model(ids, attention_mask=mask, position_ids=places, labels=wanted)
    out = LatentReasoner(model, TOKENS)(ids, mask, wanted)
    rows_at, columns_at = (wanted[:, 1:] != IGNORE).nonzero(as_tuple=True)
    assert torch.allclose(out.logits, want.logits[rows_at, columns_at], atol=1e-5)
    assert torch.isclose(out.loss, want.loss, rtol=1e-6)
    assert out.thoughts.shape == (3, 0, 32)
    assert out.num_slots.tolist() == [0, 0, 0]


def test_without_slots_generation_is_the_backbones_own(model: PreTrainedModel) -> None:
    ids, mask = padded([[1, 2, 3, 4, 5], [6, 7, 8], [9]], "left")
    ids = ids.masked_fill(mask == 0, PAD)
    want = model.generate(ids, attention_mask=mask, max_new_tokens=6, do_sample=False, pad_token_id=PAD)[:, 5:]
    assert torch.equal(LatentReasoner(model, TOKENS).generate(ids, mask, max_new_tokens=6, pad_token_id=PAD), want)
    one = model.generate(ids[2:, -1:], max_new_tokens=6, do_sample=False, pad_token_id=PAD)[:, 1:]
    assert torch.equal(LatentReasoner(model, TOKENS).generate(ids[2:, -1:], max_new_tokens=6, pad_token_id=PAD), one)


# Generation


def written(model: nn.Module, rows: list[list[int]], how: str = "left", length: int = 5, **options: Any) -> list[list[int]]:
    ids, mask = padded(rows, how)
    new = LatentReasoner(model, TOKENS).generate(ids, mask, max_new_tokens=length, pad_token_id=PAD, **options)
    return new.tolist()


@pytest.mark.parametrize("how", PADDINGS)
def test_a_batch_is_continued_as_each_prompt_alone_without_a_cache(model: PreTrainedModel, how: str) -> None:
    want = [continued(model, row, 5) for row in ROWS]
    assert len(set(map(tuple, want))) == len(ROWS)
    assert written(model, ROWS, how) == want
    assert [written(model, [row], how)[0] for row in ROWS] == want


def test_prompts_may_all_end_in_a_slot(model: PreTrainedModel) -> None:
    rows = [[1, 2, B, L], [3, B, L, L, L], [4, L]]
    assert written(model, rows, "right") == [continued(model, row, 5) for row in rows]


def test_prompts_end_with_the_end_marker_and_unequal_slots(model: PreTrainedModel) -> None:
    rows = [[1, B, L, L, E], [2, 3, 4, B, E], [5, B, L, E], [6, 7, B, L, L, L, E]]
    assert written(model, rows, "right") == [continued(model, row, 5) for row in rows]


def test_one_new_token_can_be_asked_for() -> None:
    model = build()
    assert written(model, ROWS, length=1) == [continued(model, row, 1) for row in ROWS]


def test_generation_in_double_precision_and_in_training_mode() -> None:
    model = build().double().train()
    assert written(model, ROWS) == [continued(model, row, 5) for row in ROWS]


def test_a_row_stops_at_its_end_token_even_when_that_comes_first() -> None:
    model = build()
    free = [continued(model, row, 8) for row in ROWS]
    eos = free[1][0]
    assert any(eos in row[1:] for row in free)
    ended = [row[: row.index(eos) + 1] if eos in row else row for row in free]
    width = max(map(len, ended))
    want = [[*row, *[PAD] * (width - len(row))] for row in ended]
    assert written(model, ROWS, length=8, eos_token_id=eos) == want
    assert written(model, ROWS[1:2], length=8, eos_token_id=eos) == [[eos]]
    assert written(model, ROWS, length=8, eos_token_id=[eos, 23]) == want or any(23 in row for row in free)


def test_tokens_written_are_never_slots() -> None:
    model = build()
    with torch.no_grad():  # now the model writes <|latent|> wherever it may
        model.transformer.wte.weight[L] = 4 * continued_state(model, ROWS[0])
    new = written(model, ROWS[:1], length=4)[0]
    assert new[0] == L
    assert new == continued(model, ROWS[0], 4)


@torch.no_grad()
def continued_state(model: PreTrainedModel, row: list[int]) -> Tensor:
    return think(model, row)[0][-1]


def test_options_reach_the_backbones_generate() -> None:
    model = build()
    greedy = [continued(model, row, 4) for row in ROWS]
    assert written(model, ROWS, length=4, do_sample=True, top_k=1) == greedy
    never = (greedy[0][0], greedy[1][1])
    assert written(model, ROWS, length=4, suppress_tokens=list(never)) == [continued(model, row, 4, never=never) for row in ROWS]
    torch.manual_seed(1)
    drawn_once = written(model, ROWS, length=4, do_sample=True, temperature=3.0)
    torch.manual_seed(1)
    assert written(model, ROWS, length=4, do_sample=True, temperature=3.0) == drawn_once != greedy


def test_several_samples_of_a_row_stand_together() -> None:
    model = build("llama")
    greedy = [continued(model, row, 4) for row in ROWS]
    thrice = written(model, ROWS, "right", length=4, do_sample=True, top_k=1, num_return_sequences=3)
    assert thrice == [row for row in greedy for _ in range(3)]
    torch.manual_seed(0)
    free = written(model, ROWS, length=4, do_sample=True, num_return_sequences=8)
    assert len(free) == 8 * len(ROWS)
    assert len({tuple(row) for row in free[:8]}) > 1


def test_as_many_beams_as_words_find_the_likeliest_pair_of_tokens() -> None:
    model = build("gpt2")
    likeliest = []
    with torch.no_grad():
        for row in ROWS:
            head = model.get_output_embeddings()
            first = head(think(model, row)[0][-1]).log_softmax(-1)
            second = [head(think(model, [*row, t], written=1)[0][-1]).log_softmax(-1) for t in range(VOCABULARY)]
            likeliest.append(list(divmod(int((first[:, None] + torch.stack(second)).argmax()), VOCABULARY)))
    assert written(model, ROWS, length=2, num_beams=VOCABULARY) == likeliest
    assert likeliest != [continued(model, row, 2) for row in ROWS]
    best_of_two = written(model, ROWS, length=2, num_beams=VOCABULARY, num_return_sequences=2)
    assert best_of_two[::2] == likeliest


def test_beams_may_come_from_a_generation_config() -> None:
    model = build()
    beams = written(model, ROWS, num_beams=3)
    assert written(model, ROWS, generation_config=GenerationConfig(num_beams=3)) == beams
    model.generation_config.num_beams = 3
    assert written(model, ROWS) == beams
    assert beams != [continued(model, row, 5) for row in ROWS]


# Edits


def test_an_edit_is_asked_once_a_slot_and_told_who_has_it() -> None:
    seen = []

    def edit(slot: int, thoughts: Tensor, active: Tensor) -> Tensor:
        seen.append((slot, tuple(thoughts.shape), active.tolist()))
        return thoughts

    model = build()
    assert written(model, ROWS, edit=edit) == [continued(model, row, 5) for row in ROWS]
    assert seen == [
        (0, (6, 32), [True, True, False, True, False, True]),
        (1, (6, 32), [True, True, False, False, False, True]),
        (2, (6, 32), [False, True, False, False, False, True]),
        (3, (6, 32), [False, False, False, False, False, True]),
    ]


def test_an_edit_sees_the_thoughts_of_the_forward() -> None:
    reasoner, seen = LatentReasoner(build(), TOKENS), []

    def edit(slot: int, thoughts: Tensor, active: Tensor) -> Tensor:
        seen.append(thoughts)
        return thoughts

    ids, mask = padded(ROWS, "left")
    reasoner.generate(ids, mask, max_new_tokens=1, edit=edit)
    thoughts = reasoner(ids, mask).thoughts
    for slot in range(4):
        has = [row.count(L) > slot for row in ROWS]
        assert torch.allclose(seen[slot][has], thoughts[has, slot], atol=1e-5)


def test_zeroed_thoughts_are_zero_vectors_fed_in(model: PreTrainedModel) -> None:
    want = [continued(model, row, 5, edit=lambda slot, thought: torch.zeros_like(thought)) for row in ROWS]
    assert written(model, ROWS, edit=lambda slot, thoughts, active: torch.zeros_like(thoughts)) == want
    assert want != [continued(model, row, 5) for row in ROWS]


def test_an_edited_thought_bears_on_the_thoughts_after_it() -> None:
    model, vector = build(), torch.linspace(-2, 2, 32)
    want = [continued(model, row, 5, edit=lambda slot, thought: vector if slot == 1 else thought) for row in ROWS]
    assert written(model, ROWS, edit=lambda slot, thoughts, active: vector.expand(6, -1) if slot == 1 else thoughts) == want


def test_an_edit_of_rows_without_the_slot_is_ignored() -> None:
    model = build()

    def edit(slot: int, thoughts: Tensor, active: Tensor) -> Tensor:
        return torch.where(active[:, None], thoughts, 100.0)

    assert written(model, ROWS, edit=edit) == [continued(model, row, 5) for row in ROWS]


# What it leaves alone


@pytest.mark.parametrize("training", [True, False])
def test_generation_leaves_the_model_as_it_was(training: bool) -> None:
    model = build().train(training)
    weights, config, settings = deepcopy(model.state_dict()), model.config.to_dict(), model.generation_config.to_dict()
    written(model, ROWS, num_beams=2, eos_token_id=3)
    assert model.training is training
    assert model.config.to_dict() == config
    assert model.generation_config.to_dict() == settings
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_the_reasoner_holds_no_weights_of_its_own() -> None:
    model = build()
    assert {id(p) for p in LatentReasoner(model, TOKENS).parameters()} == {id(p) for p in model.parameters()}


# PEFT


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing")
def test_fresh_adapters_change_nothing_and_take_all_the_gradient() -> None:
    plain, labels = build(), some_labels(ROWS)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True)
    adapted = peft.get_peft_model(build(), config)
    tensors = padded(ROWS, "both", labels)
    out, want = LatentReasoner(adapted, TOKENS)(*tensors), LatentReasoner(plain, TOKENS)(*tensors)
    assert torch.allclose(out.loss, want.loss, rtol=1e-6)
    assert torch.allclose(out.thoughts, want.thoughts, atol=1e-5)
    out.loss.backward()
    reached = {name for name, p in adapted.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {name for name, _ in adapted.named_parameters() if "lora_B" in name}  # lora_A's is zero while B is
    assert {name for name, p in adapted.named_parameters() if p.grad is not None} == {
        name for name, _ in adapted.named_parameters() if "lora_" in name
    }
    assert written(adapted, ROWS) == written(plain, ROWS)
    assert written(adapted, ROWS, num_beams=2) == written(plain, ROWS, num_beams=2)


# What is refused


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing")
def test_gradient_checkpointing_is_refused_in_training() -> None:
    model = build()
    model.gradient_checkpointing_enable()
    reasoner, ids = LatentReasoner(model, TOKENS), torch.tensor([[1, L, 2]])
    with pytest.raises(
        ValueError, match=r"^gradient checkpointing drops the key/value cache that the latent loop needs: switch it off$"
    ):
        reasoner.train()(ids)
    assert reasoner.eval()(ids).thoughts.shape == (1, 1, 32)


@pytest.mark.parametrize("how", PADDINGS)
def test_a_row_that_begins_with_a_slot_is_refused(how: str) -> None:
    reasoner = LatentReasoner(build(), TOKENS)
    ids, mask = padded([[1, L, 2, 3], [L, 2]], how)
    message = r"^a row begins with <\|latent\|>: a thought is the state of the token before it, so give at least one token first$"
    with pytest.raises(ValueError, match=message):
        reasoner(ids, mask)
    with pytest.raises(ValueError, match=message):
        reasoner.generate(ids, mask, max_new_tokens=1)


def test_models_that_rescale_their_logits_are_refused() -> None:
    granite = GraniteForCausalLM(GraniteConfig(**SMALL, **GROUPED, logits_scaling=8.0))
    with pytest.raises(
        ValueError, match=r"^GraniteForCausalLM rescales its logits \(logits_scaling\), which is not supported yet$"
    ):
        LatentReasoner(granite, TOKENS)
    gemma = Gemma2ForCausalLM(Gemma2Config(**SMALL, **GROUPED, head_dim=8))
    with pytest.raises(ValueError, match=r"^Gemma2ForCausalLM rescales its logits \(final_logit_softcapping\)"):
        LatentReasoner(gemma, TOKENS)
    LatentReasoner(GraniteForCausalLM(GraniteConfig(**SMALL, **GROUPED, logits_scaling=1.0)), TOKENS)


@pytest.mark.parametrize("name", BUILDS)
@pytest.mark.parametrize("rounds", [None, 2, 4])
def test_states_at_the_slots_are_those_of_each_layer(name: str, rounds: int | None) -> None:
    model = BUILDS[name]().eval()
    reasoner = LatentReasoner(model, TOKENS, Loop(rounds=rounds))
    for row in ROWS:
        count = row.count(L)
        out = reasoner(torch.tensor([row]), layers=(0, 1, 2))
        assert out.states.shape == (1, count, 3, 32)
        assert torch.equal(out.states[:, :, 0], out.thoughts)
        if not count:
            continue
        embeds = model.get_input_embeddings()(torch.tensor([row]))
        at = [i for i, token in enumerate(row) if token == L]
        embeds[0, at] = out.thoughts[0]
        whole = model(inputs_embeds=embeds, output_hidden_states=True).hidden_states
        for block in (1, 2):
            torch.testing.assert_close(out.states[0, :, block], whole[block][0, at], atol=1e-5, rtol=1e-4)


def test_states_of_a_batch_are_those_of_its_rows_and_zero_past_their_slots() -> None:
    reasoner = LatentReasoner(BUILDS["gpt2"]().eval(), TOKENS)
    ids, mask = padded(ROWS, "middle")
    states = reasoner(ids, mask, layers=(2, 0)).states
    for i, row in enumerate(ROWS):
        alone = reasoner(torch.tensor([row]), layers=(2, 0)).states
        torch.testing.assert_close(states[i, : alone.shape[1]], alone[0], atol=1e-5, rtol=1e-4)
        assert not states[i, alone.shape[1] :].any()
    with pytest.raises(ValueError, match="given 3; allowed are 0"):
        reasoner(ids, mask, layers=(3,))
