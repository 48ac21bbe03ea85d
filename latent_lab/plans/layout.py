"""Where planning tokens stand, and what they are called: ``<prefix_0><prefix_1><+_0><+_1>`` before a step that adds.

In words, as hard prompts, the same is ``Plan: addition. ``.
"""

import re
from collections import Counter
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from functools import cached_property

from latent_lab.plans.base import ANSWER, RESERVED, Label, Plan, PlanError

PREFIX = "prefix"
TOKEN = "<{kind}_{number}>"
"""How tokens are written, unless ``stage.form`` says otherwise."""
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
    form: str = TOKEN
    """How a token is written, ``{kind}`` and ``{number}`` standing for what they say."""
    called: Mapping[str, str] = field(default_factory=dict)
    """What kinds (and the prefix) are called; by their own name, where nothing is said."""

    @property
    def is_typed(self) -> bool:
        """Whether blocks say what kind a step is of."""
        return self.plan.is_typed and self.place != "front" and self.num_special > 0

    def tokens(self) -> list[str]:
        """Every new token, prefix first."""
        return [] if self.in_words else self.names()

    def names(self) -> list[str]:
        """What blocks are made of, prefix first."""
        return [*self.prefix(), *(token for kind in self.kinds() for token in self.group(kind))]

    def kinds(self) -> list[str]:
        """Every kind that is announced."""
        return [kind for kind in self.plan.kinds() if self.answer or kind != ANSWER] if self.is_typed else []

    @cached_property
    def kind_of(self) -> dict[str, str]:
        """What each of :meth:`names` is a token of: a kind, or the prefix."""
        return dict.fromkeys(self.prefix(), PREFIX) | {token: kind for kind in self.kinds() for token in self.group(kind)}

    def prefix(self) -> tuple[str, ...]:
        """What every block begins with. Where no kinds are said it takes their tokens, too: blocks then stay as long."""
        more = 0 if self.is_typed or self.in_words else self.num_special
        return tuple(self._token(PREFIX, i) for i in range(self.num_prefix + more))

    def group(self, kind: str) -> tuple[str, ...]:
        """The tokens of one kind."""
        return tuple(self._token(kind, i) for i in range(self.num_special))

    def _token(self, kind: str, number: int) -> str:
        name = kind if self.in_words else self.called.get(kind, kind)
        return self.form.replace("{number}", str(number)).replace("{kind}", name)

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
        words = ", ".join(self.word(kind) for kind in map(self.kind_of.__getitem__, block) if kind != PREFIX)
        return "".join([SAID if block else "", f" {words}." if words else "", " " if block else ""])

    def word(self, kind: str) -> str:
        """A kind in words."""
        return self.called.get(kind) or word(kind)

    def check(self) -> None:
        """Raise :class:`PlanError` where a name is given to no kind, or one name to two; the plan must be fitted."""
        known = [*([] if self.in_words else [PREFIX]), *dict.fromkeys((*self.plan.kinds(), *self.plan.own_kinds()))]
        for kind in self.called:
            if kind not in known and kind not in RESERVED - {PREFIX}:
                raise PlanError(f"stage.names: given a name for {kind}; the plan has no such kind; allowed: {', '.join(known)}")
        said = [self.word(kind) for kind in self.kinds()] if self.in_words else self.names()
        if twice := [name for name, count in Counter(said).items() if count > 1]:
            raise PlanError(f"stage.names: two kinds would write {twice[0]}; give each a name of its own")


def word(kind: str) -> str:
    """A kind in words; operators that are one kind are joined by hyphens."""
    return "-".join(SIGNS.get(piece, piece) for piece in re.findall(r"[-+*/^!]|[^-+*/^!]+", kind))
