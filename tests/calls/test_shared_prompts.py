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

PROMPTS = ("Tom has 3 apples", "Tom has 7", "and 4 more are left, so he has")


def requests(*samples: int) -> list[Request]:
    return [Request(({"role": "user", "content": text},), sample) for sample in samples for text in PROMPTS]


def num_tokens(module: nn.Module, read: list[int]) -> torch.utils.hooks.RemovableHandle:
    """Notes how many tokens, padding included, each call of an embedding reads."""
    return module.register_forward_hook(lambda _, given, out: read.append(given[0].numel()))


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
    lengths = [len(chat.tokenizer(chat.prompt(each.messages), add_special_tokens=not chat.tokenizer.chat_template)["input_ids"])
               for each in requests(0)]  # fmt: skip
    read: list[int] = []
    handle = num_tokens(chat.model.get_input_embeddings(), read)
    done = chat.answer(requests(0, 1, 2, 3), batch_size=64, max_tokens=6, temperature=0.8, seed=0)
    handle.remove()
    assert read[:2] == [3 * (max(lengths) - 1), 12]
    assert set(read[2:]) <= set(range(1, 13))  # a token of each row that has not ended
    assert [each.prefilled for each in done] == [*lengths, *[0] * 9]
    assert [each.usage.prompt for each in done] == lengths * 4  # what an answer alone would have read


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
