"""Where planning tokens stand, and what they are called: ``<prefix_0><prefix_1><+_0><+_1>`` before a step that adds.

In words, as hard prompts, the same is ``Plan: addition. ``.
"""

import re
from collections.abc import Sequence as Seq
from dataclasses import dataclass

from latent_lab.plans.base import ANSWER, Label, Plan

PREFIX = "prefix"
SAID = "Plan:"
"""What a block in words begins with."""
SIGNS = {"+": "addition", "-": "subtraction", "*": "multiplication", "/": "division", "^": "power", "!": "factorial"}
PLACES = ("steps", "front", "plan_first", "plan_only")


@dataclass(frozen=True)
class Blocks:
    """The token blocks of a plan. A kind has ``num_special`` tokens, so that it has room to say something."""

    plan: Plan
    num_prefix: int
    num_special: int
    place: str
    answer: bool
    """Whether the answer has a block, too."""
    in_words: bool = False
    """Whether blocks are text of the language and no new tokens; the names below then only stand for words."""

    @property
    def is_typed(self) -> bool:
        """Whether blocks say what kind a step is of."""
        return self.plan.is_typed and self.place != "front" and self.num_special > 0

    def tokens(self) -> list[str]:
        """Every new token, prefix first."""
        return [] if self.in_words else self.names()

    def names(self) -> list[str]:
        """What blocks are made of, prefix first."""
        kinds = [kind for kind in self.plan.kinds() if self.answer or kind != ANSWER] if self.is_typed else []
        return [*self.prefix(), *(token for kind in kinds for token in self.group(kind))]

    def prefix(self) -> tuple[str, ...]:
        """What every block begins with. Where no kinds are said it takes their tokens, too: blocks then stay as long."""
        more = 0 if self.is_typed or self.in_words else self.num_special
        return tuple(f"<{PREFIX}_{i}>" for i in range(self.num_prefix + more))

    def group(self, kind: str) -> tuple[str, ...]:
        """The tokens of one kind."""
        return tuple(f"<{kind}_{i}>" for i in range(self.num_special))

    def block(self, label: Label) -> tuple[str, ...]:
        """What stands before a step."""
        return (*self.prefix(), *(token for kind in label for token in self.group(kind) if self.is_typed))

    def last(self) -> tuple[str, ...]:
        """What stands before the answer."""
        return self.block((self.plan.answer_kind,)) if self.answer else ()

    def written(self, labels: Seq[Label]) -> list[tuple[str, ...]]:
        """The blocks of one problem: one before each step and, last, the answer's; empty where nothing stands."""
        if self.place == "front":
            return [self.prefix(), *[()] * len(labels)]
        if self.place == "plan_only":
            return [()] * (len(labels) + 1)
        return [*map(self.block, labels), self.last()]

    def overview(self, labels: Seq[Label]) -> list[tuple[str, ...]]:
        """The blocks that stand before everything, each in a line of its own."""
        if self.place not in ("plan_first", "plan_only"):
            return []
        return [block for block in (*map(self.block, labels), self.last()) if block]

    def said(self, block: Seq[str]) -> str:
        """A block in words, with the blank that parts it from its step; empty where nothing stands."""
        words = ", ".join(word(kind_of(name)) for name in block if kind_of(name) != PREFIX)
        return "".join([SAID if block else "", f" {words}." if words else "", " " if block else ""])


def kind_of(name: str) -> str:
    """The kind that ``<+_0>`` stands for."""
    return name[1:-1].rpartition("_")[0]


def word(kind: str) -> str:
    """A kind in words; operators that are one kind are joined by hyphens."""
    return "-".join(SIGNS.get(piece, piece) for piece in re.findall(r"[-+*/^!]|[^-+*/^!]+", kind))
