"""A chat with a model in this process: what it is given, when it stops, and that nobody in a batch disturbs another."""

from pathlib import Path

import pytest
from chatmodel import PLANNING, save_chat_model
from tiny import save_hub_model

from latent_lab.backbone import ModelError
from latent_lab.calls.client import Completion
from latent_lab.calls.local import Chat
from latent_lab.calls.reply import Usage
from latent_lab.run import DeviceError

CHAT = ({"role": "system", "content": "Judge."}, {"role": "user", "content": "2+2=5?"})


def load(folder: Path) -> Chat:
    return Chat.load(str(folder), None, "float32", "cpu")


def test_the_template_writes_the_prompt_and_else_it_is_paragraphs(tmp_path: Path) -> None:
    assert load(save_chat_model(tmp_path / "a")).prompt(CHAT) == "<|system|>Judge.<|user|>2+2=5?<|assistant|>"
    assert load(save_chat_model(tmp_path / "b", template=False)).prompt(CHAT) == "Judge.\n\n2+2=5?\n\n"


def test_a_completion_says_what_a_server_would(tmp_path: Path) -> None:
    chat = load(save_chat_model(tmp_path))
    prompt = len("Judge.2+2=5?") + 3
    assert chat.complete([CHAT], batch_size=1, max_tokens=5, temperature=0.0, seed=0) == [
        Completion(PLANNING, None, "stop", Usage(prompt, 0, 2, 0))
    ]
    assert chat.complete([CHAT], batch_size=1, max_tokens=1, temperature=0.0, seed=0) == [
        Completion(PLANNING, None, "length", Usage(prompt, 0, 1, 0))
    ]


def test_the_token_that_begins_every_text_stands_there_once(tmp_path: Path) -> None:
    chat = load(save_hub_model(tmp_path, "llama"))
    length = len(chat.tokenizer("Tom has", add_special_tokens=False)["input_ids"])
    settings = {"batch_size": 1, "max_tokens": 1, "temperature": 0.0, "seed": 0}
    chat.tokenizer.chat_template = "{{ bos_token }}{{ messages[0]['content'] }}"
    (done,) = chat.complete([[{"role": "user", "content": "Tom has"}]], **settings)
    assert done.usage.prompt == 1 + length
    chat.tokenizer.chat_template = None
    (done,) = chat.complete([[{"role": "user", "content": "Tom has"}]], **settings)
    assert done.usage.prompt == len(chat.tokenizer("Tom has\n\n")["input_ids"])


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_reply_does_not_depend_on_what_stands_beside_it_in_the_batch(tmp_path: Path, family: str) -> None:
    chat = load(save_hub_model(tmp_path, family))
    chats = [[{"role": "user", "content": text}] for text in ("one", "two and much more", "3", "Tom has 7 apples.")]
    settings = {"max_tokens": 8, "temperature": 0.0, "seed": 0}
    alone = [chat.complete([each], batch_size=1, **settings)[0] for each in chats]
    assert chat.complete(chats, batch_size=3, **settings) == alone
    assert len({each.text for each in alone}) > 1


def test_a_model_that_is_not_there_or_never_stops(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^path: given 'nowhere'; allowed: a folder with config\.json"):
        load(Path("nowhere"))
    with pytest.raises(ModelError, match="has no end-of-text token"):
        load(save_hub_model(tmp_path, "gpt2", eos=False))


def test_a_device_is_what_the_machine_has(tmp_path: Path) -> None:
    import torch

    save_chat_model(tmp_path)
    has_cuda = torch.cuda.is_available()
    assert Chat.load(str(tmp_path), None, "bfloat16", "auto").model.device.type == ("cuda" if has_cuda else "cpu")
    assert Chat.load(str(tmp_path), None, "bfloat16", "cpu").model.dtype == torch.bfloat16
    if not has_cuda:
        with pytest.raises(DeviceError, match=r"^device: given cuda; PyTorch finds no GPU on this machine; allowed: auto, cpu$"):
            Chat.load(str(tmp_path), None, "float32", "cuda")
