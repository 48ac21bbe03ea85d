"""What a model wrote, read as a plan: which kinds it announced, and whether every block is whole and in its place."""

import re
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from latent_lab.plans.layout import SAID, Blocks
from latent_lab.sequences import ANSWER_PREFIX

FIRST_SIGN = 0xF0000
"""Each planning token (in words, each word of a block) is read as one character from here on, a plane of Unicode that texts do
not use."""
SIGNS = "[\U000f0000-\U000ffffd]"
LINE, ANSWER_LINE = "[^\n\U000f0000-\U000ffffd]", re.escape(ANSWER_PREFIX.strip())


@dataclass(frozen=True, slots=True)
class Written:
    """The plan in a reply."""

    kinds: tuple[str, ...]
    """The kinds of each whole block before a step (joined by blanks), in the order they are announced."""
    steps: tuple[str, ...]
    """The line written after each of them; empty where a plan stands alone."""
    is_well_formed: bool
    """Whether the reply is blocks and lines in the order of training, and nothing besides."""
    num_tokens: int
    """Planning tokens; in words, the kinds said and what each block begins with."""


class Reading:
    """Reads replies in token ids, for one tokenizer."""

    def __init__(self, blocks: Blocks, tokenizer: Any) -> None:
        self.blocks, self.tokenizer = blocks, tokenizer
        tokens = blocks.tokens()
        self.ids: tuple[int, ...] = tuple(tokenizer.convert_tokens_to_ids(tokens)) if tokens else ()
        self.sign_of = {name: chr(FIRST_SIGN + i) for i, name in enumerate(blocks.names())}
        self.sign_of_id = dict(zip(self.ids, self.sign_of.values(), strict=not blocks.in_words))
        self.known: dict[str, tuple[int, ...]] = {}

    def coded(self, block: Seq[str], *, is_line: bool = False) -> tuple[int, ...]:
        """The ids that write a block, before its step or in a line of its own."""
        end = "\n" if is_line else ""
        if self.blocks.in_words:
            said = self.blocks.said(block)
            return self._text(said.rstrip() + end if is_line else said)
        return (*(self.ids[ord(self.sign_of[name]) - FIRST_SIGN] for name in block), *self._text(end))

    def _text(self, text: str) -> tuple[int, ...]:
        if text not in self.known:
            ids = self.tokenizer([text], add_special_tokens=False, split_special_tokens=True)["input_ids"][0] if text else ()
            self.known[text] = tuple(ids)
        return self.known[text]

    def plain(self, ids: Seq[int]) -> list[int]:
        """The same without planning tokens: what is graded."""
        return [i for i in ids if i not in self.sign_of_id]

    def signs(self, ids: Seq[int]) -> str:
        """A reply as text, each planning token one character."""
        if self.blocks.in_words:
            return self._phrase.sub(lambda found: self._signs(self._named(found[1])), self.tokenizer.decode(list(ids)))
        text, run = "", list[int]()
        for i in [*ids, None]:
            if i is not None and i not in self.sign_of_id:
                run.append(i)
                continue
            text += self.tokenizer.decode(run) if run else ""
            run = []
            text += self.sign_of_id[i] if i is not None else ""
        return text

    def read(self, ids: Seq[int]) -> Written:
        """The plan in a reply, end-of-text token left out."""
        text = self.signs(ids)
        is_whole = re.fullmatch(self._grammar, text) is not None
        found = self._announced(text)
        num_tokens = len(re.findall(SIGNS, text)) if self.blocks.in_words else sum(i in self.sign_of_id for i in ids)
        return Written(tuple(kinds for kinds, _ in found), tuple(step for _, step in found), is_whole, num_tokens)

    @cached_property
    def _group_of(self) -> dict[str, tuple[str, ...]]:
        """In words: the names that each word stands for."""
        kinds = [kind for kind in self.blocks.plan.kinds() if self.blocks.group(kind)[0] in self.sign_of]
        return {self.blocks.word(kind): self.blocks.group(kind) for kind in kinds} if self.blocks.is_typed else {}

    @cached_property
    def _phrase(self) -> re.Pattern[str]:
        """In words: a block at the beginning of a line, its kinds the first group."""
        words = "|".join(re.escape(each) for each in sorted(self._group_of, key=len, reverse=True))
        kinds = f"(?: ((?:{words})(?:, (?:{words}))*)\\.)?" if words else "()"
        return re.compile(f"^{SAID}{kinds} *", re.MULTILINE)

    def _named(self, words: str | None) -> list[str]:
        kinds = words.split(", ") if words else []
        return [*self.blocks.prefix(), *(name for kind in kinds for name in self._group_of[kind])]

    @cached_property
    def _grammar(self) -> re.Pattern[str]:
        step, last = self._step, self._signs(self.blocks.last())
        answer = f"{last}{ANSWER_LINE}[^\n\U000f0000-\U000ffffd]*"
        overview = f"(?:{step}\n)*" + (f"{last}\n" if last else "")
        solution = f"(?:{step}{LINE}+\n)*{answer}"
        return re.compile(
            {
                "steps": solution,
                "front": f"{self._signs(self.blocks.prefix())}(?:{LINE}+\n)*{ANSWER_LINE}{LINE}*",
                "plan_first": overview + solution,
                "plan_only": f"{overview}{ANSWER_LINE}{LINE}*",
            }[self.blocks.place]
        )

    @cached_property
    def _step(self) -> str:
        """A pattern of what may stand before a step."""
        prefix = self._signs(self.blocks.prefix())
        if not self.blocks.is_typed:
            return prefix
        groups = "|".join(self._signs(self.blocks.group(kind)) for kind in self._step_kinds)
        return f"{prefix}(?:{groups}){'+' if self.blocks.plan.assignment else '*'}"

    @cached_property
    def _step_kinds(self) -> list[str]:
        plan = self.blocks.plan
        return [kind for kind in plan.kinds() if kind != plan.answer_kind or plan.control == "filler"]

    def _announced(self, text: str) -> list[tuple[str, str]]:
        """The kinds of each block that is followed by a step (or stands in a line of its own where none is written), and it."""
        if not self.blocks.is_typed:
            return []
        is_alone = self.blocks.place == "plan_only"
        of = {self._signs(self.blocks.group(kind)): kind for kind in self._step_kinds}
        after = "(?=\n)" if is_alone else f"(?={LINE})"
        found = re.finditer(f"{self._step}(?!{SIGNS}){after}(?!{ANSWER_LINE})", text)
        size, skip = self.blocks.num_special, self.blocks.num_prefix
        announced = []
        for match in found:
            kinds = " ".join(of[match[0][i : i + size]] for i in range(skip, len(match[0]), size))
            announced.append((kinds, re.split(f"\n|{SIGNS}", text[match.end() :])[0]))
        if is_alone and self.blocks.answer and self.blocks.plan.control == "filler":
            announced = announced[:-1]  # the answer's own block looks like a step's
        return announced

    def _signs(self, names: Seq[str]) -> str:
        return "".join(self.sign_of[name] for name in names)
