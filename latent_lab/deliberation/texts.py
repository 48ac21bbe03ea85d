"""Cutting texts by tokens: beginnings, ends, parts, chunks. Pure functions; what a token is, a function ``spans`` says."""

import re
from collections.abc import Callable
from random import Random
from typing import Any

Spans = Callable[[str], list[tuple[int, int]]]
"""Where the tokens of a text begin and end, in order."""
GAP = "..."
"""Stands where something was left out."""


def words(text: str) -> list[tuple[int, int]]:
    """Tokens where no tokenizer is at hand: words, each with the white space after it."""
    return [found.span() for found in re.finditer(r"\S+\s*", text)]


def tokens_of(tokenizer: Any) -> Spans:
    """Tokens as a Hugging Face tokenizer makes them."""

    def spans(text: str) -> list[tuple[int, int]]:
        offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return [(begin, end) for begin, end in offsets if end > begin]

    return spans


def first(text: str, k: int, spans: Spans) -> str:
    """The first k tokens."""
    found = spans(text)
    return text if k >= len(found) else text[: found[k][0]]


def last(text: str, k: int, spans: Spans) -> str:
    """The last k tokens."""
    found = spans(text)
    return text if k >= len(found) else text[found[-k][0] :] if k else ""


def scattered(text: str, k: int, spans: Spans, seed: str) -> str:
    """Any k tokens, in their order; the same seed and text give the same."""
    found = spans(text)
    if k >= len(found):
        return text
    return "".join(text[begin:end] for begin, end in (found[i] for i in sorted(Random(seed).sample(range(len(found)), k))))


def chunks(text: str, size: int, overlap: int, spans: Spans) -> list[str]:
    """Parts of ``size`` tokens, each beginning with the last ``overlap`` ones of the part before; the last may be shorter."""
    found = spans(text)
    if len(found) <= size:
        return [text]
    starts = range(0, len(found) - overlap, size - overlap)
    ends = [min(start + size, len(found)) for start in starts]
    places = [*(begin for begin, _ in found), len(text)]
    return [text[places[start] : places[end]] for start, end in zip(starts, ends, strict=True)]


def trace(text: str, mark: str) -> str:
    """The thinking in a text: what stands before the first mark that ends it; without one, all of it."""
    return text.partition(mark)[0] if mark else text


def after(text: str, mark: str) -> str | None:
    """What follows the last mark that ends thinking; None without one, or where nothing follows."""
    return (text.rpartition(mark)[2].strip() or None) if mark and mark in text else None
