"""Decoding in spans writes what one call of ``generate`` writes, and runs the rows that have not ended alone."""

from typing import Any

import pytest
import torch
from test_reasoner import PAD, ROWS, TOKENS, build, padded
from torch import Tensor

from latent_lab import LatentReasoner
from latent_lab.calls.sampling import Drawn
from latent_lab.decoding import in_spans
from latent_lab.loop import Loop


class Counted:
    """A ``generate`` that remembers how many rows and new tokens each call had."""

    def __init__(self, generate: Any) -> None:
        self.generate, self.calls = generate, []

    def __call__(self, **options: Any) -> Any:
        out = self.generate(**options)
        sequences = getattr(out, "sequences", out)
        self.calls.append((len(options["input_ids"]), sequences.shape[1] - options["input_ids"].shape[1]))
        return out


def prompts() -> tuple[Tensor, Tensor]:
    return padded([[1, 2, 3, 4, 5], [6, 7, 8], [9], [3, 1], [8, 8, 2, 1]], "left")


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("span", [1, 3, 20])
def test_every_row_gets_the_tokens_of_one_call(family: str, span: int) -> None:
    model = build(family)
    ids, mask = prompts()
    free = model.generate(ids, attention_mask=mask, max_new_tokens=12, do_sample=False, pad_token_id=PAD)[:, 5:]
    for eos in ([int(free[0, 2])], [int(free[1, 5]), int(free[2, 0])], [23]):
        options = {"max_new_tokens": 12, "eos_token_id": eos, "pad_token_id": PAD, "do_sample": False}
        want = model.generate(ids, attention_mask=mask, **options)[:, 5:]
        assert torch.equal(in_spans(model.generate, ids, mask, None, span=span, **options), want)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_what_is_written_stands_behind_the_positions_given(family: str) -> None:
    reasoner = LatentReasoner(build(family), TOKENS)
    ids, mask = prompts()
    places = (mask.cumsum(1) - 1).clamp(min=0)
    places[:, -1] += 3  # as where three tokens of a chain are gone
    options = {"max_new_tokens": 12, "eos_token_id": 23, "pad_token_id": PAD}
    written = reasoner.generate(ids, mask, places, **options)
    assert not torch.equal(written, reasoner.generate(ids, mask, **options))
    for row, (prompt, new) in enumerate(zip(ids, written, strict=True)):
        whole = [*prompt[mask[row] == 1].tolist(), *new.tolist()]
        at = [*places[row][mask[row] == 1].tolist()]
        at += range(at[-1] + 1, at[-1] + 1 + len(new))
        out = reasoner(torch.tensor([whole]), None, torch.tensor([whole]), torch.tensor([at]))
        likeliest = out.logits.argmax(-1)[-len(new) :]
        length = new.tolist().index(23) + 1 if 23 in new else len(new)
        assert torch.equal(likeliest[:length], new[:length])


def test_rows_that_have_ended_are_not_run_again() -> None:
    model = build()
    ids, mask = prompts()
    free = model.generate(ids, attention_mask=mask, max_new_tokens=9, do_sample=False, pad_token_id=PAD)[:, 5:].tolist()
    eos = free[0][1]
    first = [row.index(eos) if eos in row else 99 for row in free]
    left = [sum(at >= done for at in first) for done in (0, 3, 6)]
    generate = Counted(model.generate)
    in_spans(generate, ids, mask, None, max_new_tokens=9, eos_token_id=eos, pad_token_id=PAD, span=3, do_sample=False)
    assert [rows for rows, _ in generate.calls] == [count for count in left if count]
    assert left[1] < left[0]


def test_thoughts_stay_what_they_were_when_rows_leave() -> None:
    model = build("llama")
    ids, mask = padded(ROWS, "right")
    reasoner = LatentReasoner(model, TOKENS)
    free = reasoner.generate(ids, mask, max_new_tokens=30, pad_token_id=PAD)  # no end: one call
    for eos in {int(free[0, 3]), int(free[3, 0]), int(free[5, 11])}:
        ended = reasoner.generate(ids, mask, max_new_tokens=30, eos_token_id=eos, pad_token_id=PAD)
        for row, whole in zip(ended.tolist(), free.tolist(), strict=True):
            length = whole.index(eos) + 1 if eos in whole else 30
            assert row[:length] == whole[:length]
            assert set(row[length:]) <= {PAD}


class Dictated:
    """Writes a text of its own into each row; knows rows by their number, as they are told to it."""

    def __init__(self, texts: list[list[int]]) -> None:
        self.texts, self.start = texts, None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.start = self.start or input_ids.shape[1]
        done = input_ids.shape[1] - self.start
        for row, text in enumerate(self.texts):
            scores[row] = -torch.inf
            scores[row, text[min(done, len(text) - 1)]] = 0.0
        return scores


class Following(Dictated):
    def keep(self, rows: list[int]) -> None:
        self.texts = [self.texts[row] for row in rows]


@pytest.mark.parametrize("kind", [Dictated, Following])
def test_what_decides_tokens_row_by_row_goes_with_its_rows_or_is_called_once(kind: type) -> None:
    model = build()
    ids, mask = padded(ROWS, "left")
    texts = [[7] * (5 * row) + [23] for row in range(len(ROWS))]
    generate = Counted(model.generate)
    model.generate = generate
    options = {"max_new_tokens": 40, "eos_token_id": 23, "pad_token_id": PAD, "logits_processor": [kind(texts)]}
    new = LatentReasoner(model, TOKENS).generate(ids, mask, **options).tolist()
    assert [row[: row.index(23) + 1] for row in new] == texts
    assert (len(generate.calls) == 1) == (kind is Dictated)


def test_samples_do_not_depend_on_when_rows_end() -> None:
    model = build()
    ids, mask = padded(ROWS, "left")
    drawn = []
    for eos in (None, 5):
        torch.manual_seed(3)
        options = {"max_new_tokens": 30, "eos_token_id": eos, "pad_token_id": PAD, "do_sample": True}
        drawn.append(LatentReasoner(model, TOKENS).generate(ids, mask, **options).tolist())
    for free, ended in zip(*drawn, strict=True):
        length = free.index(5) + 1 if 5 in free else len(free)
        assert ended[:length] == free[:length]


def test_each_row_draws_the_same_alone_and_beside_rows_that_end() -> None:
    model = build("llama")
    ids, mask = padded(ROWS, "left")
    reasoner, free = LatentReasoner(model, TOKENS), {"max_new_tokens": 30, "pad_token_id": PAD}
    for eos in (3, 11):
        generate = Counted(model.generate)
        model.generate = generate
        new = reasoner.generate(
            ids, mask, **free, eos_token_id=eos, logits_processor=[Drawn(range(len(ROWS)), [1.5] * len(ROWS))]
        ).tolist()
        assert len({rows for rows, _ in generate.calls}) > 1  # some had ended before others
        model.generate = generate.generate
        for number, row in enumerate(ROWS):
            alone = reasoner.generate(
                torch.tensor([row]), None, **free, eos_token_id=eos, logits_processor=[Drawn([number], [1.5])]
            )[0].tolist()
            assert new[number][: len(alone)] == alone


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("loop", [Loop(), Loop(rounds=2), Loop(feeds="tokens"), Loop(alone=True)], ids=str)
def test_prompts_continued_many_times_are_thought_through_once(family: str, loop: Loop) -> None:
    reasoner = LatentReasoner(build(family), TOKENS, loop)
    ids, mask = padded([row for row in ROWS if row[-1] != TOKENS.latent], "left")
    rows = torch.tensor([1, 0, 1, 1, 2, 0])
    closed = torch.arange(len(ids)) % 2 == 0 if loop.alone else None
    widths: list[int] = []
    handle = reasoner.model.get_input_embeddings().register_forward_hook(lambda _, given, out: widths.append(len(given[0])))
    options: dict[str, Any] = {"max_new_tokens": 6, "eos_token_id": 23, "pad_token_id": PAD}
    once = reasoner.generate(ids, mask, rows=rows, is_closed=closed, **options)
    handle.remove()
    assert widths[0] == len(ids)  # all passes up to the last column
    assert set(widths[1:]) <= set(range(1, len(rows) + 1))
    each = reasoner.generate(ids[rows], mask[rows], is_closed=None if closed is None else closed[rows], **options)
    assert once.tolist() == each.tolist()


def test_prompts_that_end_in_a_slot_are_continued_many_times() -> None:
    reasoner = LatentReasoner(build(), TOKENS)
    ids, mask = padded([[1, 2, TOKENS.latent], [4, TOKENS.latent, TOKENS.latent]], "left")
    options: dict[str, Any] = {"max_new_tokens": 4, "eos_token_id": 23, "pad_token_id": PAD}
    once = reasoner.generate(ids, mask, rows=torch.tensor([1, 1, 0]), **options).tolist()
    first, second = reasoner.generate(ids, mask, **options).tolist()
    assert once == [second, second, first]
