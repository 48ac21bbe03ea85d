"""A problem is tokenised once, piece by piece; layouts join the pieces and label what is to be predicted."""

import random
import re
from pathlib import Path
from typing import Any

import pytest
from chatmodel import save_chat_model
from transformers import AutoTokenizer

from latent_lab.backbone import Pretrained, digit_tokenizer, marker_ids
from latent_lab.problems import Problem
from latent_lab.sequences import IGNORE, Encoded, LatentTokens, Role, Sequence, encode, frame, join
from latent_lab.weights import ModelError

PROBLEMS = [
    Problem("a", "12 + 7", ("2 + 7 = 9", "1 + 0 = 1"), "19"),
    Problem("b", "2 + 7", ("2 + 7 = 9",), "9"),
    Problem("c", "2 + 7", (), "9"),
]
TOKENS = LatentTokens(start=90, latent=91, end=92)
PROBLEM = Encoded("p", question=(1, 2, 3), steps=((10, 11), (20,), (30, 31, 32), (40,)), answer=(50, 51, 0))


class Counting:
    """A real tokenizer that remembers what it was asked."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.eos_token_id: int = tokenizer.eos_token_id
        self.asked: list[tuple[str, bool]] = []

    def __call__(self, text: list[str], *, add_special_tokens: bool, split_special_tokens: bool) -> dict[str, list[list[int]]]:
        self.asked += [(t, add_special_tokens) for t in text]
        ids: dict[str, list[list[int]]] = self.tokenizer(text, add_special_tokens=add_special_tokens)
        return ids


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return digit_tokenizer(PROBLEMS, 512)


# Encoding


def test_strings_are_those_of_the_published_code(tokenizer: Any) -> None:
    first, _, last = encode(PROBLEMS, tokenizer)
    assert tokenizer.decode(first.question) == "12 + 7\n"
    assert [tokenizer.decode(step) for step in first.steps] == ["2 + 7 = 9\n", "1 + 0 = 1\n"]
    assert tokenizer.decode(first.answer) == "### 19<|endoftext|>"
    assert (first.answer[-1], first.id) == (tokenizer.eos_token_id, "a")
    assert last.steps == ()


def test_steps_and_answers_that_repeat_are_tokenised_once(tokenizer: Any) -> None:
    counting = Counting(tokenizer)
    encoded = encode(PROBLEMS, counting)
    without_specials = [text for text, special in counting.asked if not special]
    assert sorted(without_specials) == ["### 19", "### 9", "1 + 0 = 1\n", "2 + 7 = 9\n"]
    assert [text for text, special in counting.asked if special] == ["12 + 7\n", "2 + 7\n", "2 + 7\n"]
    assert encoded[0].steps[0] is encoded[1].steps[0]
    assert encoded == [encode([p], tokenizer)[0] for p in PROBLEMS]


def test_only_the_question_gets_the_tokenizers_special_tokens() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer: Any = digit_tokenizer(PROBLEMS, 512)
    begin = tokenizer.convert_tokens_to_ids("<|start-latent|>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|start-latent|> $A", special_tokens=[("<|start-latent|>", begin)]
    )
    problem = encode(PROBLEMS[:1], tokenizer)[0]
    assert problem.question[0] == begin
    assert [begin in piece for piece in (*problem.steps, problem.answer)] == [False, False, False]


def test_no_problems_encode_to_none(tokenizer: Any) -> None:
    assert encode([], tokenizer) == []


def test_labels_are_the_joined_ids_and_never_those_of_a_joined_string(tokenizer: Any) -> None:
    steps = ("abab", "ab")
    merging: Any = digit_tokenizer([Problem("x", "ab abab", steps, "ab")], 300)
    problem = encode([Problem("x", "ab", steps, "ab")], merging)[0]
    laid_out = join(problem, marker_ids(merging), slots=[0], steps=[1])
    written = [i for i, label in zip(laid_out.ids, laid_out.labels, strict=True) if label != IGNORE]
    assert written == [*problem.steps[1], *problem.answer]
    assert merging.decode(laid_out.ids) == "ab\n<|start-latent|><|latent|><|end-latent|>ab\n### ab<|endoftext|>"


# What stands around a question

CHAT = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] | trim }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
REFUSING = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}{{ messages[0]['content'] }}"
)


@pytest.fixture(scope="module")
def chatting(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tokenizer with a chat template, read from disk."""
    return AutoTokenizer.from_pretrained(save_chat_model(tmp_path_factory.mktemp("chat")))


@pytest.mark.parametrize(
    ("template", "instruction", "text"),
    [
        ("plain", "", "2 + 7\n"),
        ("alpaca", "", "### Instruction:\n2 + 7\n\n### Response:\n"),
        ("alpaca", "Add.", "### Instruction:\nAdd.\n\n### Input:\n2 + 7\n\n### Response:\n"),
        ("chat", "", "<|user|>2 + 7<|end|><|assistant|>"),
        ("chat", "Add.", "<|system|>Add.<|end|><|user|>2 + 7<|end|><|assistant|>"),
    ],
)
def test_a_question_is_put_as_its_template_says(template: str, instruction: str, text: str, chatting: Any) -> None:
    chatting.chat_template = CHAT
    (plain,) = encode(PROBLEMS[1:2], chatting)
    (framed,) = encode(PROBLEMS[1:2], chatting, around=frame(template, instruction, chatting))
    assert chatting.decode(framed.question) == text
    assert (framed.steps, framed.answer) == (plain.steps, plain.answer)
    whole = join(framed, None, steps=[0])
    assert chatting.decode(whole.ids) == text + "2 + 7 = 9\n### 9<|end|>"
    assert whole.labels == (*[IGNORE] * len(framed.question), *whole.ids[len(framed.question) :])


@pytest.mark.parametrize("instruction", ["", "Add."])
def test_a_chat_is_what_the_tokenizer_itself_makes_of_it(instruction: str, chatting: Any) -> None:
    chatting.chat_template = CHAT
    turns = [{"role": "system", "content": instruction}] if instruction else []
    own = chatting.apply_chat_template(
        [*turns, {"role": "user", "content": "2 + 7"}], add_generation_prompt=True, return_dict=False
    )
    assert encode(PROBLEMS[1:2], chatting, around=frame("chat", instruction, chatting))[0].question == tuple(own)


def test_a_question_that_spells_a_special_token_ends_no_turn(chatting: Any) -> None:
    chatting.chat_template = CHAT
    problems = [Problem("a", "What is <|end|>?", (), "9"), PROBLEMS[1]]
    spelled, plain = encode(problems, chatting, around=frame("chat", "", chatting))
    ends = [encoded.question.count(chatting.convert_tokens_to_ids("<|end|>")) for encoded in (spelled, plain)]
    assert ends == [1, 1]
    assert chatting.decode(spelled.question) == "<|user|>What is <|end|>?<|end|><|assistant|>"


def test_a_question_that_spells_a_slot_has_none_in_a_chat_either(tmp_path: Path) -> None:
    backbone = Pretrained(str(save_chat_model(tmp_path))).load()
    (encoded,) = encode(
        [Problem("a", "What is <|latent|>?", (), "9")], backbone.tokenizer, around=frame("chat", "", backbone.tokenizer)
    )
    assert backbone.tokens.latent not in encoded.question
    assert backbone.tokenizer.decode(encoded.question) == "<|user|>What is <|latent|>?<|assistant|>"


@pytest.mark.parametrize(
    ("template", "instruction", "message"),
    [
        (None, "", "this model's tokenizer has no chat template; allowed: plain, alpaca"),
        (
            REFUSING,
            "Add.",
            "the tokenizer's template refuses it (no system role); allowed: plain, alpaca, or no stage.instruction",
        ),
        (
            "{{ messages[0]['content'][:3] }}",
            "",
            "the tokenizer's template does not write a question once; allowed: plain, alpaca",
        ),
    ],
)
def test_a_chat_that_cannot_be_laid_out_is_refused(template: str | None, instruction: str, message: str, chatting: Any) -> None:
    chatting.chat_template = template
    with pytest.raises(ModelError, match=f"^{re.escape(f'stage.template: given chat; {message}')}$"):
        frame("chat", instruction, chatting)


# Joining


def columns(sequence: Sequence) -> list[tuple[int, int, str]]:
    return [(i, label, role.name) for i, label, role in zip(sequence.ids, sequence.labels, sequence.roles, strict=True)]


def test_a_training_sequence_token_by_token() -> None:
    laid_out = join(PROBLEM, TOKENS, slots=[0, 1], steps=[2, 3])
    assert columns(laid_out) == [
        (1, -100, "QUESTION"),
        (2, -100, "QUESTION"),
        (3, -100, "QUESTION"),
        (90, -100, "START"),
        (91, -100, "LATENT"),
        (91, -100, "LATENT"),
        (92, -100, "END"),
        (30, 30, "STEP"),
        (31, 31, "STEP"),
        (32, 32, "STEP"),
        (40, 40, "STEP"),
        (50, 50, "ANSWER"),
        (51, 51, "ANSWER"),
        (0, 0, "ANSWER"),
    ]
    assert (laid_out.num_slots, laid_out.step_of_slot, laid_out.problem) == (2, (0, 1), PROBLEM)


def test_steps_may_be_written_before_thinking() -> None:
    laid_out = join(PROBLEM, TOKENS, before=[0, 1], slots=[2], steps=[3], is_start_predicted=True)
    assert laid_out.ids == (1, 2, 3, 10, 11, 20, 90, 91, 92, 40, 50, 51, 0)
    assert laid_out.labels == (-100, -100, -100, 10, 11, 20, 90, -100, -100, 40, 50, 51, 0)
    assert join(PROBLEM, TOKENS, before=[0, 1], slots=[2], steps=[3]).labels[6] == -100


def test_without_markers_it_is_a_plain_chain_of_thought() -> None:
    laid_out = join(PROBLEM, None, steps=range(4))
    assert laid_out.ids == (1, 2, 3, 10, 11, 20, 30, 31, 32, 40, 50, 51, 0)
    assert laid_out.labels == (-100, -100, -100, 10, 11, 20, 30, 31, 32, 40, 50, 51, 0)
    assert [role.name for role in laid_out.roles] == ["QUESTION"] * 3 + ["STEP"] * 7 + ["ANSWER"] * 3


def test_without_target_it_ends_after_the_end_marker() -> None:
    prompt = join(PROBLEM, TOKENS, slots=[None, None], steps=[2, 3], with_target=False)
    assert prompt.ids == (1, 2, 3, 90, 91, 91, 92)
    assert set(prompt.labels) == {IGNORE}
    assert join(PROBLEM, None, steps=[2, 3], with_target=False).ids == (1, 2, 3)


@pytest.mark.parametrize("seed", range(20))
def test_labels_stand_on_steps_and_answer_and_are_the_ids_themselves(seed: int) -> None:
    rng = random.Random(seed)
    first, second = sorted(rng.sample(range(5), 2))
    slots = [s for s in range(first, second) for _ in range(rng.randint(0, 2))]
    predicted = bool(rng.getrandbits(1))
    laid_out = join(PROBLEM, TOKENS, before=range(first), slots=slots, steps=range(second, 4), is_start_predicted=predicted)
    labelled = {Role.STEP, Role.ANSWER} | ({Role.START} if predicted else set())
    assert laid_out.labels == tuple(
        i if role in labelled else IGNORE for i, role in zip(laid_out.ids, laid_out.roles, strict=True)
    )
    assert [i for i, role in zip(laid_out.ids, laid_out.roles, strict=True) if role is Role.LATENT] == [91] * len(slots)


# What step supervision wants from each slot


@pytest.mark.parametrize(
    ("slots", "texts"),
    [
        ([], ()),
        ([0, 1, 2], ((10, 11), (20,), (30, 31, 32))),
        ([0, 0, 1, 1], ((), (10, 11), (), (20,))),  # two thoughts a step: the last of them holds it
        ([3, None, None], ((40,), (0,), (0,))),  # past the chain: its end
        ([3, 3, None, None], ((), (40,), (0,), (0,))),
        ([None], ((0,),)),
        ([2, 3], ((30, 31, 32), (40,))),
    ],
)
def test_a_slots_text_is_its_step_at_the_steps_last_slot(slots: list[int | None], texts: tuple[tuple[int, ...], ...]) -> None:
    assert join(PROBLEM, TOKENS, slots=slots).slot_texts == texts
