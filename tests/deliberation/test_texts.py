"""Cutting by tokens, and prompts that are checked for their slots: exact strings."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import save_hub_model

from latent_lab.deliberation.prompts import PROMPTS, SLOTS, load_prompt
from latent_lab.deliberation.texts import after, chunks, first, last, scattered, tokens_of, trace, words

TEXT = "one two  three\nfour five"


def test_beginnings_ends_and_parts_are_counted_in_tokens_not_in_characters() -> None:
    assert [TEXT[a:b] for a, b in words(TEXT)] == ["one ", "two  ", "three\n", "four ", "five"]
    assert first(TEXT, 2, words) == "one two  "
    assert last(TEXT, 2, words) == "four five"
    assert (first(TEXT, 9, words), last(TEXT, 9, words), last(TEXT, 0, words), first("", 3, words)) == (TEXT, TEXT, "", "")


def test_chunks_overlap_and_the_last_may_be_shorter() -> None:
    assert chunks(TEXT, 2, 0, words) == ["one two  ", "three\nfour ", "five"]
    assert chunks(TEXT, 3, 1, words) == ["one two  three\n", "three\nfour five"]
    assert chunks(TEXT, 5, 1, words) == [TEXT]


@given(st.text("ab \n", max_size=60), st.integers(1, 7))
def test_chunks_without_overlap_are_the_text(text: str, size: int) -> None:
    assert "".join(chunks(text.lstrip(), size, 0, words)) == text.lstrip()


def test_scattered_tokens_keep_their_order_and_depend_on_the_seed_alone() -> None:
    kept = scattered(TEXT, 3, words, "p 0 1")
    assert kept == scattered(TEXT, 3, words, "p 0 1")
    places = [TEXT.split().index(word) for word in kept.split()]
    assert len(places) == 3
    assert places == sorted(places)
    assert len({scattered(TEXT, 3, words, f"p {n} 1") for n in range(20)}) > 3
    assert scattered("two words", 3, words, "x") == "two words"


def test_a_tokenizer_counts_its_own_tokens(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(save_hub_model(tmp_path, "gpt2"))
    text = "Tom has 7 apples."
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert first(text, 3, tokens_of(tokenizer)) == tokenizer.decode(ids[:3])
    assert last(text, 3, tokens_of(tokenizer)) == tokenizer.decode(ids[-3:])


def test_thinking_ends_at_the_first_mark_and_what_follows_the_last_is_said() -> None:
    text = "a</think>b</think> c "
    assert (trace(text, "</think>"), after(text, "</think>")) == ("a", "c")
    assert (trace("abc", "</think>"), after("abc", "</think>"), after("abc</think>  ", "</think>")) == ("abc", None, None)


def test_every_prompt_that_comes_along_has_its_slots_and_a_version() -> None:
    files = sorted(PROMPTS.glob("*.txt"))
    assert len(files) >= 13
    for file in files:
        kind, _, name = file.stem.partition("_")
        prompt = load_prompt(kind, name)
        assert file.stem.endswith("_v1")
        assert not re.search(r"\{\w+\}", prompt.filled(dict.fromkeys(SLOTS[kind], "")))


def test_a_prompt_is_filled_in_one_pass() -> None:
    prompt = load_prompt("summarise", "line_v1")
    assert "{question} and 7" in prompt.filled({"question": "q", "reasoning": "{question} and 7"})


def test_an_unknown_prompt_or_one_without_a_slot_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^again=nope: there is no such prompt; allowed are different_v1, .*, or a file of"):
        load_prompt("again", "nope")
    (tmp_path / "mine.txt").write_text("{question}")
    with pytest.raises(ValueError, match=r"it has no \{memory\}; allowed are files with \{question\} and \{memory\}$"):
        load_prompt("again", str(tmp_path / "mine.txt"))
    assert load_prompt("reason", str(tmp_path / "mine.txt")).filled({"question": "7"}) == "7"
