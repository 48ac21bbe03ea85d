"""A calculator that writes results while a model writes its chain: after ``<<12*3=`` come ``36>>``, whatever the model would say.

The tool of GSM8K's paper (arXiv 2110.14168, section 4) at decoding time: the model plans, exact arithmetic executes. It works on
text, so any tokenizer will do, and keeps nothing from one token to the next, so it holds for batches, samples and beams alike.
"""

import re
from collections.abc import Sequence as Seq
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from latent_lab.exact import evaluate, written

OPEN = re.compile(r"<<([^<>=\n]*)$")
"""A step whose left side is being written."""
ASKED = re.compile(r"<<([^<>=\n]+)=([^<>=\n]*>?)$")
"""A step that stands at its equals sign, or somewhere in its result."""
CLOSE = ">>"


class Vocabulary:
    """What the tokens of a tokenizer say, as far as steps are concerned."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.texts: list[str] = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])

    def having(self, pattern: str, size: int) -> Tensor:
        """``[size]``: True at tokens whose text matches somewhere."""
        found = [token for token, text in enumerate(self.texts) if re.search(pattern, text)]
        marked = torch.zeros(size, dtype=torch.bool)
        marked[[token for token in found if token < size]] = True
        return marked

    @cached_property
    def plain(self) -> dict[str, int]:
        """The token of each text that could be part of a result."""
        return {text: token for token, text in reversed(list(enumerate(self.texts))) if re.fullmatch(r"[-0-9./>]+", text)}

    def next_token(self, result: str, done: int) -> int | None:
        """The token with which ``=result`` goes on after ``done`` characters of the result; None where there is none.

        The tokenizer's own cut of ``=result`` where one of its tokens begins there, else the longest token that fits.
        """
        if self.tokenizer.is_fast:
            coded = self.tokenizer(f"={result}", add_special_tokens=False, return_offsets_mapping=True)
            for token, (start, end) in zip(coded["input_ids"], coded["offset_mapping"], strict=True):
                if start == done + 1 and self.texts[token] == result[start - 1 : end - 1]:
                    return int(token)
        fits = [text for length in range(len(result) - done, 0, -1) if (text := result[done : done + length]) in self.plain]
        return self.plain[fits[0]] if fits else None


class Calculator(LogitsProcessor):
    """Leaves one choice wherever a result is due. One object serves one call of ``generate``.

    What is no arithmetic (see :func:`latent_lab.exact.evaluate`) is left to the model. A token such as ``=1``, which would begin
    a result of its own, is kept out of a step's left side.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.start: int | None = None
        """Tokens of the prompt, known at the first call: what stands there was not written by the model."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """``[rows, tokens]`` so far and ``[rows, vocabulary]`` scores of the next token to scores."""
        if self.start is None:
            self.start = input_ids.shape[1]
            size, device = scores.shape[1], scores.device
            self.opens, self.closes, self.joined = (
                self.vocabulary.having(pattern, size).to(device) for pattern in ("<", r"\n", r"=.*\S")
            )
        new = input_ids[:, self.start :]
        inside = last(self.opens[new]) > last(self.closes[new])  # a result is due in a step alone: other rows need no decoding
        for row in inside.nonzero()[:, 0].tolist():
            text = self.vocabulary.tokenizer.decode(new[row])
            if OPEN.search(text):
                scores[row] = scores[row].masked_fill(self.joined, -torch.inf)
            elif (token := self._due(text)) is not None:
                scores[row] = torch.full_like(scores[row], -torch.inf)
                scores[row, token] = 0.0
        return scores

    def keep(self, rows: Seq[int]) -> None:
        """Go on with these rows alone: nothing is remembered of a row but what stands in it."""

    def _due(self, text: str) -> int | None:
        asked = ASKED.search(text)
        value = evaluate(asked[1]) if asked else None
        if asked is None or value is None:
            return None
        result, so_far = written(value) + CLOSE, asked[2].strip()
        return self.vocabulary.next_token(result, len(so_far)) if result.startswith(so_far) else None


def last(marked: Tensor) -> Tensor:
    """``[rows]``: the last column of ``[rows, columns]`` that is True, -1 where none is."""
    if not marked.shape[1]:
        return marked.new_full((len(marked),), -1, dtype=torch.long)
    number = torch.arange(1, marked.shape[1] + 1, device=marked.device)
    return (marked * number).max(dim=1).values - 1
