"""Many samples of one prompt: read once, written as if each had been read by itself, and the ledger says what was read."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from chatmodel import save_rambling_model
from tiny import save_hub_model
from torch import nn

from latent_lab.calls.client import Request
from latent_lab.calls.here import Here, numbered
from latent_lab.calls.ledger import open_ledger, read_ledger
from latent_lab.calls.local import Chat
from latent_lab.decoding import reads_in_pieces, reads_once

PROMPTS = ("Tom has 3 apples", "Ann has 7", "and 4 more are left, so he has")


def requests(*samples: int) -> list[Request]:
    return [Request(({"role": "user", "content": text},), sample) for sample in samples for text in PROMPTS]


def num_tokens(module: nn.Module, read: list[int]) -> torch.utils.hooks.RemovableHandle:
    """Notes how many tokens, padding included, each call of an embedding reads."""
    return module.register_forward_hook(lambda _, given, out: read.append(given[0].numel()))


def tokens(chat: Chat, request: Request) -> list[int]:
    has_template = chat.tokenizer.chat_template is not None
    ids: list[int] = chat.tokenizer(chat.prompt(request.messages) + request.prefix, add_special_tokens=not has_template)[
        "input_ids"
    ]
    return ids


def num_alike(prompts: list[list[int]]) -> int:
    return next(n for n, column in enumerate(zip(*prompts, strict=False)) if len(set(column)) > 1)


def answered(chat: Chat, asked: Sequence[Request], temperature: float, size: int = 64) -> list[str | None]:
    done = chat.answer(asked, batch_size=size, max_tokens=6, temperature=temperature, seed=0)
    return [each.text for each in done]


@pytest.fixture(scope="module", params=["gpt2", "llama", "rambling"])
def chat(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Chat:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "rambling":
        return Chat.load(str(save_rambling_model(folder, (" 1", " 2"))), None, "float32", "cpu")
    return Chat.load(str(save_hub_model(folder, request.param)), None, "float32", "cpu")


def test_different_prompts_are_numbered_in_their_order() -> None:
    assert numbered(["a", "b", "a", "c", "b"]) == ([0, 1, 3], [0, 1, 0, 2, 1])
    assert numbered([]) == ([], [])


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_samples_are_those_of_prompts_read_by_themselves(chat: Chat, temperature: float) -> None:
    asked = requests(0, 1, 2, 3)
    together = answered(chat, asked, temperature)
    assert together == [answered(chat, [each], temperature)[0] for each in asked]
    assert together == answered(chat, asked, temperature, size=5)
    if temperature:
        assert len(set(together)) > len(PROMPTS)


def test_each_prompt_goes_through_the_model_once(chat: Chat) -> None:
    """All but its last token: that one is run for every sample, as what is written after it is."""
    lengths = [len(tokens(chat, each)) for each in requests(0)]
    read: list[int] = []
    handle = num_tokens(chat.model.get_input_embeddings(), read)
    done = chat.answer(requests(0, 1, 2, 3), batch_size=64, max_tokens=6, temperature=0.8, seed=0)
    handle.remove()
    assert read[:2] == [3 * (max(lengths) - 1), 12]
    assert set(read[2:]) <= set(range(1, 13))  # a token of each row that has not ended
    assert [each.prefilled for each in done] == [*lengths, *[0] * 9]
    assert [each.usage.prompt for each in done] == lengths * 4  # what an answer alone would have read


ASKED = ("Tom has 3 apples and gives 2 of them away.", "Ann walks 7 miles and then 4 more, all in one day.")
SAID = (" So.", " It is 1.", " It is 5, or it may be 6.")


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_what_prompts_begin_with_goes_through_the_model_once_as_well(chat: Chat, temperature: float) -> None:
    """Two questions, three texts below each, two samples of all: a question is read once, and so is each text below it."""
    asked = [Request(({"role": "user", "content": q},), n, prefix=said) for n in (0, 1) for q in ASKED for said in SAID]
    read: list[int] = []
    handle = num_tokens(chat.model.get_input_embeddings(), read)
    together = chat.answer(asked, batch_size=64, max_tokens=6, temperature=temperature, seed=0)
    handle.remove()
    assert [done.text for done in together] == [answered(chat, [each], temperature)[0] for each in asked]
    prompts = [tokens(chat, each) for each in asked[:6]]
    shared = [num_alike(prompts[:3]), num_alike(prompts[3:])]
    assert min(shared) > 20
    rests = [len(prompt) - shared[i // 3] for i, prompt in enumerate(prompts)]
    assert read[:3] == [2 * max(shared), 6 * (max(rests) - 1), 12]
    spared = [0, shared[0], shared[0], 0, shared[1], shared[1]]
    assert [done.prefilled for done in together[:6]] == [len(p) - n for p, n in zip(prompts, spared, strict=True)]
    assert [done.prefilled for done in together[6:]] == [0] * 6
    assert [done.usage.prompt for done in together] == [len(prompt) for prompt in prompts] * 2


def test_a_model_with_a_window_reads_whole_prompts(tmp_path: Path) -> None:
    """Padding between a beginning and a rest would stand in the window in place of what is to be seen."""
    folder = save_hub_model(tmp_path, "llama")
    chat = Chat.load(str(folder), None, "float32", "cpu")
    assert reads_in_pieces(chat.model)
    chat.model.config.sliding_window, chat.model.config.layer_types = 8, ["sliding_attention"] * 2
    assert reads_once(chat.model)
    assert not reads_in_pieces(chat.model)


def test_a_model_that_makes_its_own_cache_reads_every_prompt_itself(chat: Chat) -> None:
    asked = requests(0, 1)
    shared = answered(chat, asked, 0.8)
    chat.model.generation_config.cache_implementation = "static"
    try:
        done = chat.answer(asked, batch_size=64, max_tokens=6, temperature=0.8, seed=0)
    finally:
        chat.model.generation_config.cache_implementation = None
    assert [each.text for each in done] == shared
    assert [each.prefilled for each in done] == [each.usage.prompt for each in done]


def test_the_ledger_says_what_was_read_and_samples_of_a_prompt_share_a_batch(chat: Chat, tmp_path: Path) -> None:
    def answer(asked: Sequence[Request]) -> list:
        return chat.answer(asked, batch_size=4, max_tokens=6, temperature=0.8, seed=0)

    with open_ledger(tmp_path) as ledger:
        Here(ledger, {"model": "m"}, answer, 4).complete(requests(0, 1, 2, 3))
    written = read_ledger(tmp_path)
    assert [row["sample"] for row in written if row["prefilled"]] == [row["sample"] for row in written[::4]]
    for batch in (written[0:4], written[4:8], written[8:12]):
        assert len({row["prompt_sha"] for row in batch}) == 1
        assert sum(row["prefilled"] for row in batch) == batch[0]["tokens"]["prompt"]
    assert sum(row["prefilled"] for row in written) * 4 == sum(row["tokens"]["prompt"] for row in written)
