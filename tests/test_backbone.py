"""Backbones: the digit-level tokenizer, the model from scratch, and Hugging Face models with the latent markers added."""

import sys
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import save_hub_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from latent_lab.backbone import MARKERS, Backbone, ModelError, Pretrained, Scratch, continued, digit_tokenizer
from latent_lab.problems import Problem
from latent_lab.problems.arithmetic import Arithmetic
from latent_lab.sequences import Encoded, encode

PROBLEMS = Arithmetic(train_size=200).load("train")

NASTY = [
    "",
    " ",
    "  two  blanks  ",
    "\n\n\t\r\n\x0b\x0c",
    "\x00\x01\x7f",
    "12345 067 3.14 -0 1e9",
    "1 2 3",
    "a1b22c333",
    "### 83",
    "####83",
    " write  carry ### ",
    "writecarry",
    "naïve café Straße ĳ ǅ",
    "e\u0301 \u0301e",  # a combining accent, after a letter and after a blank
    "日本語 한국어 ไทย हिन्दी العربية עברית",
    "٣٤٥ ４５ ²³ Ⅷ ½",  # digits and numbers that are not ASCII
    "👩‍👩‍👧‍👦 🇩🇪 ☃",
    "\u200b\u200e\u2028\u2029\ufeff\u00a0\u3000",
    "\ufffd\U0010ffff\ue000",
    "<0x0A><0xFF> <0x41>",  # spelt like the tokens of bytes
    "<|latent >< |endoftext|>",
    "\\n \\u0041 %d {} $x$ `'\"",
    "a" * 300,
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return digit_tokenizer(PROBLEMS, 4096)


def ids_of(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def pieces(tokenizer: PreTrainedTokenizerBase, text: str) -> list[str]:
    return tokenizer.convert_ids_to_tokens(ids_of(tokenizer, text))


# The digit-level tokenizer


def test_every_digit_is_a_token_and_fixed_words_are_whole(tokenizer: PreTrainedTokenizerBase) -> None:
    assert pieces(tokenizer, "8+4+1=13 write 3 carry 1\n") == [
        "8", "+", "4", "+", "1", "=", "1", "3", " write ", "3", " carry ", "1", "\n",
    ]  # fmt: skip
    assert pieces(tokenizer, "carry 1 write 1\n") == ["carry ", "1", " write ", "1", "\n"]
    assert pieces(tokenizer, "905 + 17 =\n") == ["9", "0", "5", " + ", "1", "7", " =", "\n"]
    assert pieces(tokenizer, "### 922") == ["### ", "9", "2", "2"]


def test_in_words_a_name_is_one_token_wherever_it_stands() -> None:
    problems = [
        Problem("x", "Every yumpus is a lempus. Every lempus is a wumpus. Is Tom a yumpus or lempus?", ("Tom is 12",), "lempus")
    ]
    made = Scratch(layers=1, width=32, heads=1, positions=64, tokenizer="words").load(problems).tokenizer
    assert pieces(made, "Every yumpus is a lempus. Every lempus or 12")[:-1] == [
        " Every", " yumpus", " is", " a", " lempus", ".", " Every", " lempus", " or", " ", "1",
    ]  # fmt: skip
    assert pieces(made, "Tom is\nTom\n### Tom") == [" Tom", " is", "\n", " Tom", "\n", "###", " Tom"]
    lines = [" Tom", "  Tom", "Tom\n Tom", "\n\n  Tom is\n 12", " \n", "\n ", "12 Tom\n12", "Tom is "]
    assert [made.decode(ids_of(made, text)) for text in [*NASTY, *lines]] == [*NASTY, *lines]


SENTENCES = {
    # A subject with its verb, so that what is said of it follows at once; or what is said of it as one token, too.
    "phrases": " Every| yumpus is a| lempus|.| Yumpuses are not| shy|.| Tom is an| impus|.| Is| Tom| a| yumpus| or| lempus|?",
    "halves": " Every| yumpus is| a lempus|.| Yumpuses are| not shy|.| Tom is| an impus|.| Is| Tom| a yumpus| or| lempus|?",
}


@pytest.mark.parametrize("kind", SENTENCES)
def test_a_sentence_is_few_tokens(kind: str) -> None:
    said = "Every yumpus is a lempus. Yumpuses are not shy. Tom is an impus. Is Tom a yumpus or lempus?"
    problem = Problem("x", said, ("Tom is shy.",), "1")
    made = Scratch(layers=1, width=32, heads=1, positions=64, tokenizer=kind).load([problem])
    assert pieces(made.tokenizer, said) == SENTENCES[kind].split("|")
    assert pieces(made.tokenizer, "Tom is shy.\n### Tom is") == [" Tom is", " shy", ".", "\n", "###", " Tom", " is"]
    assert all(made.tokenizer.decode(ids_of(made.tokenizer, text)) == text for text in NASTY)


@pytest.mark.parametrize("kind", ["words", "phrases", "halves"])
def test_a_name_is_the_same_token_after_a_tokenizer_is_loaded_again(kind: str, tmp_path: Path) -> None:
    problem = Problem("x", "Every yumpus is a lempus. Tom is a yumpus. Is Tom a yumpus or lempus?", ("Tom is a yumpus.",), "1")
    made = digit_tokenizer([problem], 4096, kind)
    made.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    texts = ["Tom is a yumpus.\nTom is a lempus.\n### Tom", *NASTY]
    assert [ids_of(loaded, text) for text in texts] == [ids_of(made, text) for text in texts]
    assert [loaded.decode(ids_of(loaded, text)) for text in texts] == texts


def test_the_first_tokens_are_the_specials_and_the_bytes(tokenizer: PreTrainedTokenizerBase) -> None:
    first = tokenizer.convert_ids_to_tokens(range(260))
    assert first == ["<|endoftext|>", *MARKERS, *(f"<0x{byte:02X}>" for byte in range(256))]
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 0)
    assert [ids_of(tokenizer, marker) for marker in MARKERS] == [[1], [2], [3]]


def test_only_as_many_tokens_are_made_as_the_problems_need(tokenizer: PreTrainedTokenizerBase) -> None:
    # 260 specials and bytes, ten digits, and what sums are written with: a few signs and words.
    assert 270 < len(tokenizer) < 330
    assert max(tokenizer.get_vocab().values()) == len(tokenizer) - 1


@pytest.mark.parametrize("text", NASTY)
def test_any_text_survives_encoding_and_decoding(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    assert tokenizer.decode(ids_of(tokenizer, text)) == text


def test_every_character_of_the_first_planes_survives(tokenizer: PreTrainedTokenizerBase) -> None:
    text = "".join(chr(i) for i in range(0x30000) if not 0xD800 <= i < 0xE000)
    for start in range(0, len(text), 20_000):
        part = text[start : start + 20_000]
        assert tokenizer.decode(ids_of(tokenizer, part)) == part


def test_no_token_holds_a_digit_beside_anything_else(tokenizer: PreTrainedTokenizerBase) -> None:
    made_of_bytes = {f"<0x{byte:02X}>" for byte in range(256)}
    assert {t for t in tokenizer.get_vocab() if any(c.isdigit() for c in t)} - made_of_bytes == set("0123456789")


def test_the_same_problems_make_the_same_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    assert digit_tokenizer(iter(PROBLEMS), 4096).get_vocab() == tokenizer.get_vocab()


def test_a_saved_tokenizer_is_a_normal_one_with_equal_ids(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    texts = [*NASTY, *(p.question + "\n" for p in PROBLEMS[:20]), "".join(MARKERS)]
    assert [ids_of(loaded, text) for text in texts] == [ids_of(tokenizer, text) for text in texts]
    assert [loaded.decode(ids_of(loaded, text)) for text in texts] == texts
    assert (loaded.eos_token, loaded.pad_token, len(loaded)) == ("<|endoftext|>", "<|endoftext|>", len(tokenizer))


@pytest.mark.parametrize("vocabulary", [300, 350, 400])
def test_the_vocabulary_never_grows_beyond_its_limit(vocabulary: int) -> None:
    words = [Problem(str(i), " ".join(f"word{chr(97 + i)}{chr(97 + j)}" for j in range(26)), (), "x") for i in range(26)]
    made = digit_tokenizer(words, vocabulary)
    assert len(made) == vocabulary
    assert made.decode(ids_of(made, "wordzz and others")) == "wordzz and others"


# From scratch


def test_a_scratch_model_is_as_large_as_asked_and_random_by_torchs_seed() -> None:
    def weights(seed: int) -> Backbone:
        torch.manual_seed(seed)
        return Scratch(layers=2, width=32, heads=2, positions=64, dropout=0.25).load(PROBLEMS)

    made = weights(1)
    config = made.model.config
    assert (config.n_layer, config.n_embd, config.n_head, config.n_positions) == (2, 32, 2, 64)
    assert (config.resid_pdrop, config.embd_pdrop, config.attn_pdrop) == (0.25, 0.25, 0.25)
    assert config.vocab_size == len(made.tokenizer) == made.model.get_input_embeddings().weight.shape[0]
    assert (made.tokens.start, made.tokens.latent, made.tokens.end, made.pad) == (1, 2, 3, 0)
    table = made.model.get_input_embeddings().weight
    assert torch.equal(table, weights(1).model.get_input_embeddings().weight)
    assert not torch.equal(table, weights(2).model.get_input_embeddings().weight)


def test_a_llama_from_scratch_has_rotary_positions_and_one_table() -> None:
    made = Scratch(architecture="llama", layers=2, width=48, heads=2, positions=64, dropout=0.25).load(PROBLEMS)
    config = made.model.config
    assert (config.model_type, config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == ("llama", 2, 48, 2)
    assert (config.intermediate_size, config.max_position_embeddings, config.attention_dropout) == (128, 64, 0.25)
    assert made.model.get_output_embeddings().weight is made.model.get_input_embeddings().weight
    gpt2 = Scratch(layers=2, width=48, heads=2, positions=64).load(PROBLEMS).model
    blocks = [sum(p.numel() for p in model.base_model.parameters() if p.ndim == 2) for model in (made.model, gpt2)]
    assert abs(blocks[0] - (blocks[1] - 64 * 48)) < 0.02 * blocks[1]  # as many weights, positions aside


def test_a_model_for_symbols_has_a_row_for_each_of_them() -> None:
    made = Scratch(tokenizer="symbols", layers=1, width=32, heads=2, positions=64).load(PROBLEMS)
    assert made.model.get_input_embeddings().weight.shape == (40, 32)
    assert (made.tokens.latent, made.tokens.end, made.pad) == (33, 37, 38)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": "rnn"}, "architecture=rnn: allowed are gpt2, llama"),
        ({"tokenizer": "sentences"}, "tokenizer=sentences: allowed are digits, words, phrases, halves, symbols"),
        ({"layers": 0}, "layers=0: allowed are 1 and more"),
        ({"width": 30}, "width=30: it must be a multiple of heads=4"),
        ({"vocabulary": 299}, "vocabulary=299: allowed are 300 and more (256 are the single bytes)"),
        ({"dropout": 1.0}, "dropout=1.0: allowed are 0 to below 1"),
    ],
)
def test_a_scratch_model_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="^" + message.replace("(", r"\(").replace(")", r"\)") + "$"):
        Scratch(**settings)


# From a folder


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_hub_model(tmp_path_factory.mktemp(request.param), request.param)


def tables(model: PreTrainedModel) -> list[torch.Tensor]:
    return [model.get_input_embeddings().weight, model.get_output_embeddings().weight]


def test_new_markers_start_as_copies_of_the_double_bracket_in_both_tables(folder: Path) -> None:
    before = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    made = Pretrained(str(folder)).load()
    tokens = [made.tokens.start, made.tokens.latent, made.tokens.end]
    old = len(made.tokenizer) - 3
    (bracket,) = ids_of(AutoTokenizer.from_pretrained(folder), "<<")[-1:]
    assert tokens == [old, old + 1, old + 2]
    for old_table, table in zip(tables(before), tables(made.model), strict=True):
        assert table.shape == (old + 3, 32)
        assert torch.equal(table[:old], old_table)  # bit for bit
        assert torch.equal(table[tokens], old_table[[bracket] * 3])
    is_tied = folder.name.startswith("gpt2")
    assert (tables(made.model)[0] is tables(made.model)[1]) == is_tied
    assert made.model.config.vocab_size == old + 3


def test_of_several_pieces_the_mean_is_taken(folder: Path) -> None:
    made = Pretrained(str(folder), like="zebra!").load()
    parts = ids_of(made.tokenizer, "zebra!")
    parts = [i for i in parts if i != 1]
    assert len(parts) > 2
    for table in tables(made.model):
        torch.testing.assert_close(table[made.tokens.latent], table[parts].mean(0), rtol=0, atol=1e-7)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize(("extra_rows", "rows_after"), [(64, 64), (3, 3), (2, 3)])
def test_a_padded_vocabulary_is_never_shrunk(tmp_path: Path, family: str, extra_rows: int, rows_after: int) -> None:
    save_hub_model(tmp_path, family, extra_rows=extra_rows)
    before = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    made = Pretrained(str(tmp_path)).load()
    old = len(made.tokenizer) - 3
    for old_table, table in zip(tables(before), tables(made.model), strict=True):
        assert len(table) == old + rows_after
        assert torch.equal(table[:old], old_table[:old])
        assert torch.equal(table[old + 3 :], old_table[old + 3 :])


def test_markers_that_exist_keep_what_they_have_learned(folder: Path, tmp_path: Path) -> None:
    made = Pretrained(str(folder)).load()
    with torch.no_grad():
        for table in tables(made.model):
            table[made.tokens.latent] = torch.arange(32.0)
    made.save(tmp_path)
    again = Pretrained(str(tmp_path)).load()
    assert again.tokens == made.tokens
    for old_table, table in zip(tables(made.model), tables(again.model), strict=True):
        assert torch.equal(table, old_table)


def test_a_saved_backbone_is_a_normal_folder(folder: Path, tmp_path: Path) -> None:
    made = Pretrained(str(folder)).load()
    made.save(tmp_path)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    ids = torch.tensor([ids_of(tokenizer, "Tom has 3<|start-latent|><|latent|><|end-latent|>")])
    assert ids[0, -3:].tolist() == [made.tokens.start, made.tokens.latent, made.tokens.end]
    with torch.no_grad():
        assert torch.equal(model(ids).logits, made.model(ids).logits)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_type_of_the_weights_is_the_one_asked_for_not_the_stored_one(tmp_path: Path, dtype: str) -> None:
    save_hub_model(tmp_path, "llama")
    AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16).save_pretrained(tmp_path)
    assert {p.dtype for p in Pretrained(str(tmp_path), dtype=dtype).load().model.parameters()} == {getattr(torch, dtype)}


def test_the_next_stage_keeps_type_and_memory_settings_and_nothing_else_of_the_model(folder: Path, tmp_path: Path) -> None:
    Pretrained(str(folder)).load().save(tmp_path)
    chosen = Pretrained("elsewhere", revision="v1", dtype="bfloat16", like="zebra", state="x.pt", gradient_checkpointing=True)
    model = continued(chosen, tmp_path).model
    assert model.dtype == torch.bfloat16
    assert all("forward" in vars(layer) for layer in model.modules() if isinstance(layer, GradientCheckpointingLayer))
    model = continued(Scratch(), tmp_path).model
    assert model.dtype == torch.float32
    assert not any("forward" in vars(layer) for layer in model.modules())


def test_quantisation_without_its_package_is_refused_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # how Python is told that there is no such package
    with pytest.raises(ModelError) as error:
        Pretrained("no/such-model", quantize="8bit").load()
    assert str(error.value) == (
        "model.quantize: given 8bit; it takes bitsandbytes, which is not installed: pip install 'latent_lab[quantize]'; "
        "allowed here: none"
    )


def test_what_cannot_be_loaded_says_what_would_be_allowed(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as error:
        Pretrained(str(tmp_path / "nothing-here")).load()
    assert str(error.value).startswith(
        f"model.path: given '{tmp_path}/nothing-here'; allowed: a folder with config.json, weights and tokenizer, or a name on "
        "the hub that can be reached from here ("
    )
    assert "\n" not in str(error.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"^model\.path: given '.*/empty'; allowed: a folder with config\.json"):
        Pretrained(str(tmp_path / "empty")).load()


def test_a_tokenizer_without_an_end_is_refused(tmp_path: Path) -> None:
    save_hub_model(tmp_path, "gpt2", eos=False)
    with pytest.raises(ModelError) as error:
        Pretrained(str(tmp_path)).load()
    assert str(error.value) == (f"model.path: the tokenizer of '{tmp_path}' has no end-of-text token, so answers could not stop")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "path='': give a folder or a name on the hub, for example model=folder model.path=my-model"),
        ({"path": "x", "dtype": "int8"}, "dtype=int8: allowed are float32, bfloat16, float16"),
        ({"path": "x", "like": ""}, "like='': give a text the model knows, such as <<"),
    ],
)
def test_a_model_that_cannot_be_asked_for_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        Pretrained(**settings)


@pytest.mark.parametrize("kind", ["nano", "gpt2", "llama"])
def test_markers_that_stand_in_a_problem_are_text_and_never_slots(kind: str, tmp_path: Path) -> None:
    backbone = Scratch(layers=1, width=8, heads=1).load(PROBLEMS) if kind == "nano" else loaded(save_hub_model(tmp_path, kind))
    problem = Problem("p", "say <|latent|>", ("a <|start-latent|>",), "<|end-latent|>")
    (encoded,) = encode([problem], backbone.tokenizer)
    written = {*encoded.question, *encoded.steps[0], *encoded.answer[:-1]}
    assert not written & {*astuple(backbone.tokens), backbone.tokenizer.eos_token_id}
    (seen,) = encode([Problem("p", "say <|latent|>", (), "x")], backbone.tokenizer)
    assert seen == Encoded("p", encoded.question, (), seen.answer)


def loaded(folder: Path) -> Backbone:
    return Pretrained(path=str(folder)).load()


def test_the_activation_is_gpt2s_own_as_one_kernel() -> None:
    model: Any = Scratch(layers=1, width=16, heads=1).load(PROBLEMS).model
    x = torch.linspace(-8, 8, 1001, dtype=torch.float64)
    torch.testing.assert_close(model.transformer.h[0].mlp.act(x), ACT2FN["gelu_new"](x), rtol=1e-9, atol=1e-12)
