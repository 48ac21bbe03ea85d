"""The calculator: results are written for the model, in its own ``generate``, whatever the tokenizer and however it decodes."""

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerFast

from latent_lab.backbone import digit_tokenizer
from latent_lab.grading.calculator import Calculator, Vocabulary
from latent_lab.problems import Problem

CHAIN = "<<12*3=99>>\n<<36-1=0>>\n### 5"
TEXTS = [CHAIN, "<<12+3=15>>\n### 15", "How many? 1234567890 -> ==1 =-5 <<1/2=.5>>"] * 20


def digits() -> PreTrainedTokenizerFast:
    steps = ("<<12*3=36>>", "<<36-1=35>>")
    return digit_tokenizer([Problem("a", "How many are 12 and 3?", steps, "35")], 400)


def bytes_(*pieces: str) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer such as GPT-2's, with the merges that make these pieces one token each."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator([*pieces] * 50, trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<eos>", clean_up_tokenization_spaces=False)


def unigram() -> PreTrainedTokenizerFast:
    """A SentencePiece-like tokenizer: pieces carry the blank before them."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=["<eos>"], show_progress=False)
    made.train_from_iterator([*TEXTS, *"0123456789"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<eos>", clean_up_tokenization_spaces=False)


TOKENIZERS = {
    "digits": digits,
    "bytes": bytes_,
    "bytes that join": lambda: bytes_("=9", "=99>>", "36>>\n", "12*3=", "36"),
    "unigram": unigram,
}


class Script(LogitsProcessor):
    """Makes a model want to write a text: of the tokens that go on with what it means to say, the longest."""

    def __init__(self, tokenizer: Any, means: list[str]) -> None:
        self.tokenizer, self.means = tokenizer, means
        pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        alone = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
        self.texts = [p.replace("\u2581", " ") if "\u2581" in p else text for p, text in zip(pieces, alone, strict=True)]
        self.start: int | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.start = self.start or input_ids.shape[1]
        wanted = torch.full_like(scores, -50.0)
        for row, ids in enumerate(input_ids[:, self.start :]):
            written = self.tokenizer.decode(ids, skip_special_tokens=True)
            left = self.left(written, self.means[row * len(self.means) // len(input_ids)])
            for token, text in enumerate(self.texts):
                if text and left.startswith(text):
                    wanted[row, token] = -1.0 / len(text)
            wanted[row, self.tokenizer.eos_token_id] = -0.0 if not left else -40.0
        return wanted

    def left(self, written: str, means: str) -> str:
        """What it still means to say: after as many closed steps, whatever their results, and in an open one from where it is."""
        done = written.count(">>")
        rest = means.split(">>", done)[done] if done else means
        inside = written.rpartition(">>")[2]
        return rest[len(inside) :]


def generate(tokenizer: Any, means: list[str], *, tool: bool = True, **options: Any) -> list[str]:
    torch.manual_seed(0)
    eos = tokenizer.eos_token_id
    if eos is None or eos >= len(tokenizer):
        tokenizer.add_special_tokens({"eos_token": "<eos>"})
        eos = tokenizer.eos_token_id
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_positions=128, n_embd=16, n_layer=1, n_head=2))
    prompt = tokenizer("<<7+1=", add_special_tokens=False, return_tensors="pt")["input_ids"].repeat(len(means), 1)
    tools: list[LogitsProcessor] = [Script(tokenizer, means), *([Calculator(Vocabulary(tokenizer))] if tool else [])]
    options = {"do_sample": False, "max_new_tokens": 60, "eos_token_id": eos, "pad_token_id": eos, **options}
    mask = torch.ones_like(prompt)
    out = model.generate(prompt, attention_mask=mask, logits_processor=LogitsProcessorList(tools), **options)
    return [tokenizer.decode(row[prompt.shape[1] :], skip_special_tokens=True) for row in out]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_result_is_written_for_the_model(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    assert generate(tokenizer, [CHAIN], tool=False) == [CHAIN]
    assert generate(tokenizer, [CHAIN]) == ["<<12*3=36>>\n<<36-1=35>>\n### 5"]


@pytest.mark.parametrize(
    ("means", "written"),
    [
        ("<<1/2=7>>", "<<1/2=0.5>>"),
        ("<<3-12=7>>", "<<3-12=-9>>"),
        ("<<1,000*1,000=7>>", "<<1,000*1,000=1000000>>"),
        ("<<689566*689566=7>>", "<<689566*689566=475501268356>>"),
        ("<<7/0=7>>", "<<7/0=7>>"),
        ("<<9**9=7>>", "<<9**9=7>>"),
        ("<<x+1=7>>", "<<x+1=7>>"),
        ("12*3=7\n### 7", "12*3=7\n### 7"),
        ("<<12*3\n12=7>>", "<<12*3\n12=7>>"),
    ],
)
def test_what_is_arithmetic_is_computed_and_all_else_left_to_the_model(means: str, written: str) -> None:
    assert generate(bytes_(), [means]) == [written]


def test_rows_beams_and_samples_do_not_disturb_each_other() -> None:
    means = ["<<12*3=1>>\n### 1", "### 5", "<<2+2=5>>\n<<9-1=1>>\n### 8"]
    right = ["<<12*3=36>>\n### 1", "### 5", "<<2+2=4>>\n<<9-1=8>>\n### 8"]
    assert generate(bytes_(), means) == right
    assert generate(bytes_(), means, num_beams=2) == right
    assert generate(bytes_(), means, do_sample=True, num_return_sequences=2) == [text for text in right for _ in range(2)]


def test_what_the_prompt_says_is_not_answered() -> None:
    assert generate(bytes_(), ["5>>\n### 5"]) == ["5>>\n### 5"]
