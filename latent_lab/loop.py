"""How a latent slot is filled: the options of the latent loop, shared by every stage that thinks. Imports no torch."""

from dataclasses import dataclass, fields
from typing import Any

FEEDBACKS = ("after_norm", "before_norm")
PROJECTIONS = ("none", "linear", "mlp")
SEEN = ("all", "thoughts", "vectors")


@dataclass(frozen=True)
class Segments:
    """Sparse attention: only planning tokens see everything, text sees its own block of them and itself."""

    plan_ids: tuple[int, ...]
    """The planning tokens."""
    sees_question: bool = False
    """Text sees what stands before the first block, too."""
    earlier: int = 0
    """Blocks before its own that text sees, the tokens of the blocks alone."""


@dataclass(frozen=True)
class Loop:
    """What is fed into a slot, from where, and who may look at it. The defaults are Coconut's (arXiv 2412.06769, section 3)."""

    feeds: str = "thoughts"
    """``thoughts``: the state of the position before; ``tokens``: the slot's own embedding, which makes it a pause token."""
    feedback: str = "after_norm"
    """Where a thought is taken: the last layer's state ``after_norm`` (published) or ``before_norm``, the final norm."""
    projection: str = "none"
    """What a thought passes through: ``none``; ``linear``, which starts as the identity; ``mlp``, as in CODI."""
    match_norm: bool = False
    """Scale each thought to the mean length of the model's input embeddings."""
    detach: bool = False
    """Let no gradient flow from a slot into the state its thought was taken from (an ablation)."""
    rounds: int | None = None
    """Jacobi iterations: all slots are run in parallel so many times (PCCoT). null: one after another; as many rounds as slots
    give the same."""
    multipass: bool = False
    """For pause tokens: one pass a slot, as thoughts need; the same function, computed as slowly (an ablation)."""

    alone: bool = False
    """Where what follows the last slot sees the slots only: it sees each as its thought alone makes it. Without this, a slot also
    passes on what it has picked up from the question and from the slots before it."""
    segments: Segments | None = None
    """What is written sees planning tokens alone; None: everything before it."""

    @classmethod
    def stored(cls, plain: dict[str, Any]) -> "Loop":
        """A loop out of plain values, as they are read from a file."""
        held = plain.get("segments")
        return cls(**plain | {"segments": held and Segments(**held | {"plan_ids": tuple(held["plan_ids"])})})

    def __post_init__(self) -> None:
        check_loop(self)
        if self.alone and self.feeds == "tokens":
            raise ValueError("alone=True: pause tokens feed no thought in, so each alone holds nothing; allowed: thoughts")


def check_loop(options: object) -> None:
    """Raise ValueError for a value that :class:`Loop` does not know; ``options`` is anything with some of its fields."""
    for name, allowed in (("feeds", ("thoughts", "tokens")), ("feedback", FEEDBACKS), ("projection", PROJECTIONS)):
        value = getattr(options, name, allowed[0])
        if value not in allowed:
            raise ValueError(f"{name}={value}: allowed are {', '.join(allowed)}")
    rounds = getattr(options, "rounds", None)
    if rounds is not None and rounds < 1:
        raise ValueError(f"rounds={rounds}: allowed are 1 and more, or null for one slot after another")


def loop_of(options: object, **more: object) -> Loop:
    """The part of a stage's settings that concerns the loop."""
    own = {field.name: getattr(options, field.name) for field in fields(Loop) if hasattr(options, field.name)}
    return Loop(**{**own, **more})
