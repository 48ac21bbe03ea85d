"""What every ``plan=`` option is: fitted on training problems, it names the kind of each step. Imports no torch.

Controls come with every type: the same number of tokens at the same places, with what they say taken away.
"""

import hashlib
import json
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence as Seq
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latent_lab.files import atomic, write_json
from latent_lab.problems import Problem

if TYPE_CHECKING:
    import numpy as np

Label = tuple[str, ...]
"""Names of the kinds of one step, in the order they are announced."""

PLAN, ARRAYS = "plan.json", "plan.safetensors"
ANSWER, ASSIGNMENT, FILLER, POSITION = "answer", "assignment", "filler", "position"
RESERVED = {"prefix", ANSWER, ASSIGNMENT, FILLER}
"""Names that no kind of a plan may have: their tokens mean something else."""
CONTROLS = ("none", "filler", "shuffled", "random", "position")


class PlanError(ValueError):
    """A plan that cannot be fitted, read or used as asked; the message says what to do."""


@dataclass
class Plan(ABC):
    """A plan type. Below, what is learned is kept in ``state`` and ``arrays``, apart from the settings."""

    control: str = "none"
    """``none``; or as many tokens that say nothing of the step's kind: all alike (``filler``), kinds drawn evenly (``random``),
    the number of the step (``position``), or all that announces a step drawn from training (``shuffled``: as many on average)."""
    assignment: bool = True
    """Announce a step of no kind by a kind of its own; false: by nothing."""
    seed: int = 0
    """Seed of what a control draws, and of clustering."""

    is_typed = True  # whether steps are told apart at all

    def __post_init__(self) -> None:
        if self.control not in CONTROLS:
            raise ValueError(f"control={self.control}: allowed are {', '.join(CONTROLS)}")
        if not self.is_typed and self.control != "none":
            raise ValueError(f"control={self.control}: this plan tells no steps apart; allowed are none")
        self.state: dict[str, Any] = {}
        self.arrays: dict[str, np.ndarray] = {}
        self.outputs = Path("outputs")

    # What a plan type says

    @abstractmethod
    def own_kinds(self) -> tuple[str, ...]:
        """Every kind a step can be of, once fitted."""

    @abstractmethod
    def own_labels(self, problems: Seq[Problem]) -> list[tuple[Label, ...]]:
        """The kinds of every step; ``(ASSIGNMENT,)`` where it is of none."""

    def learn(self, problems: Seq[Problem]) -> None:
        """Learn what is needed from training problems; by default nothing."""
        self.state, self.arrays = {}, {}

    def text(self, step: str) -> str:
        """A step as it is to be written, without what only names its kind."""
        return step

    # What the rest of the laboratory asks for

    def fit(self, problems: Seq[Problem]) -> None:
        """Learn from training problems alone; what is said of other problems afterwards depends on nothing else."""
        self.learn(problems)
        if self.control != "none":
            labels = [label for steps in self._plain_labels(problems) for label in steps]
            counts = Counter(" ".join(label) for label in labels)
            self.state["seen"] = dict(sorted(counts.items()))
            self.state["longest"] = max((len(p.steps) for p in problems if p.steps), default=1)

    def kinds(self) -> tuple[str, ...]:
        """Every kind that :meth:`labels` can name, the answer's included: each gets tokens of its own."""
        if not self.is_typed:
            return ()
        if self.control == "filler":
            return (FILLER,)
        if self.control == "position":
            return (self.answer_kind, *(f"{POSITION}{i}" for i in range(self.state["longest"])))
        return (self.answer_kind, *([ASSIGNMENT] if self.assignment else []), *self.own_kinds())

    @property
    def answer_kind(self) -> str:
        """What announces the answer."""
        return FILLER if self.control == "filler" else ANSWER

    def labels(self, problems: Seq[Problem]) -> list[tuple[Label, ...]]:
        """For each problem one label a step, the control's in place of the true ones."""
        true = self._plain_labels(problems)
        if self.control == "none":
            return true
        return [
            tuple(self._controlled(label, f"{self.control}/{self.seed}/{p.id}/{i}", i) for i, label in enumerate(labels))
            for p, labels in zip(problems, true, strict=True)
        ]

    def _plain_labels(self, problems: Seq[Problem]) -> list[tuple[Label, ...]]:
        found = self.own_labels(problems)
        if self.assignment:
            return found
        return [tuple(tuple(kind for kind in label if kind != ASSIGNMENT) for label in labels) for labels in found]

    def _controlled(self, label: Label, draw: str, number: int) -> Label:
        """One label under the control; what is drawn depends on seed, problem and step alone."""
        rng = random.Random(draw)
        if self.control == "shuffled":
            seen = self.state["seen"]
            return tuple(rng.choices(list(seen), list(seen.values()))[0].split())
        if self.control == "random":
            kinds = [kind for kind in self.kinds() if kind != ANSWER]
            return tuple(rng.choice(kinds) for _ in label)
        if self.control == "position":
            return (f"{POSITION}{min(number, self.state['longest'] - 1)}",) * len(label)
        return (FILLER,) * len(label)

    # On disk

    def hash(self) -> str:
        """A hash of the settings and of all that was learned."""
        said = json.dumps([type(self).__name__, asdict(self), self.state], sort_keys=True)
        digest = hashlib.blake2b(said.encode(), digest_size=8)
        for name, array in sorted(self.arrays.items()):
            digest.update(f"{name}{array.dtype}{array.shape}".encode() + array.tobytes())
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Write what was learned as ``plan.json`` and, where there are arrays, ``plan.safetensors``."""
        if self.arrays:
            from safetensors.numpy import save_file

            with atomic(folder / ARRAYS) as temporary:
                save_file(self.arrays, temporary)
        write_json(folder / PLAN, {"kind": type(self).__name__, "hash": self.hash(), "state": self.state})

    def load(self, folder: Path) -> None:
        """Read what :meth:`save` wrote, or raise :class:`PlanError`."""
        if not (folder / PLAN).is_file():
            raise PlanError(f"{folder}: holds no {PLAN}, so no plan was fitted there; train a run of stage=planning to its end")
        stored = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        if stored["kind"] != type(self).__name__:
            raise PlanError(f"{folder / PLAN}: holds a plan of the kind {stored['kind']}; asked for is {type(self).__name__}")
        self.state, self.arrays = stored["state"], {}
        if (folder / ARRAYS).is_file():
            from safetensors.numpy import load_file

            self.arrays = load_file(folder / ARRAYS)
        if self.hash() != stored["hash"]:
            raise PlanError(f"{folder / PLAN}: it does not match its hash, so it is damaged or has other settings; fit it again")


@dataclass
class General(Plan):
    """The same token block before every step and the answer: more tokens, no kinds."""

    is_typed = False

    def own_kinds(self) -> tuple[str, ...]:
        """None."""
        return ()

    def own_labels(self, problems: Seq[Problem]) -> list[tuple[Label, ...]]:
        """No kind for any step."""
        return [((),) * len(p.steps) for p in problems]
