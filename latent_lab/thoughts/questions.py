"""What an oracle is asked: wordings, prompts and targets as token ids, and the mixture it is trained on.

A prompt is ``placeholder(s) question newline``, the target a text and the end-of-text token. Labels come from joined ids, so the
first token of a target is always supervised. No prompt holds its label.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median
from typing import Any

from torch import Tensor

from latent_lab.sequences import IGNORE, Encoded, Frame, encode, join
from latent_lab.symbols import SYMBOLS
from latent_lab.thoughts.foretold import foretold, sides
from latent_lab.thoughts.grammar import Grammar
from latent_lab.thoughts.oracle_options import OracleOptions
from latent_lab.thoughts.store import ThoughtStore

Ids = tuple[int, ...]

WORDINGS: dict[str, tuple[tuple[str, ...], str]] = {
    "step": (("step?", "step:", "the step:", "write it"), "the step?"),
    "field": (("{}?", "{}:", "the {}:"), "the {}?"),
    "answer": (("answer?", "answer:", "the answer:"), "the answer?"),
    "problem": (("problem?", "problem:", "the problem:"), "the problem?"),
    "yes_no": (("{}?", "is {}?"), "true: {}?"),
    "foretell": (("{}?", "is {}?"), "true: {}?"),
}
"""For each task the wordings of training, and one that training never sees. ``{}`` is what is asked about."""

SYMBOLIC: dict[str, tuple[tuple[str, ...], str]] = {
    "step": (("[R]", "[Q] [R]"), "[R] [Q]"),
    "answer": (("[A]", "[Q] [A]"), "[A] [Q]"),
}
"""The same for a tokenizer that knows no words (:mod:`latent_lab.symbols`); other tasks cannot be put into its symbols."""

YES, NO = "yes", "no"
WORD_PLACEHOLDER, SYMBOL_PLACEHOLDER = "?", "|"


@dataclass(frozen=True)
class Question:
    """One question: the task it belongs to, what it is about (a field, a statement), and its words."""

    task: str
    about: str
    text: str


@dataclass(frozen=True)
class Example:
    """A question with the answer to learn."""

    problem: int
    """Row of the store."""
    slots: tuple[int, ...]
    """Slots whose vectors the placeholders stand for."""
    question: Question | None
    """None: plain text of the run, no question."""
    target: str = ""
    given: str = "vector"
    """``vector``, ``none`` or ``text_only``."""


class Writer:
    """Questions and answers as token ids of one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.is_symbolic = tokenizer.get_vocab().keys() == set(SYMBOLS)
        self.wordings = SYMBOLIC if self.is_symbolic else WORDINGS
        self.end: int = tokenizer.eos_token_id
        self.begin: Ids = tuple(tokenizer("", add_special_tokens=True)["input_ids"])
        self._known: dict[str, Ids] = {}
        self.placeholder = self.ids(SYMBOL_PLACEHOLDER if self.is_symbolic else WORD_PLACEHOLDER)[-1]

    def ids(self, text: str) -> Ids:
        """Tokens of a text by itself; a marker that stands in it is spelled out."""
        if text not in self._known:
            options = {"add_special_tokens": False, "split_special_tokens": True}
            self._known[text] = tuple(self.tokenizer(text, **options)["input_ids"])
        return self._known[text]

    def prompt(self, question: str, num_vectors: int, text: str | None = None) -> tuple[Ids, range]:
        """Ids of a prompt, and the columns of its placeholders; ``text`` stands before them."""
        before = (*self.begin, *(self.ids(text + "\n") if text is not None else ()))
        ids = (*before, *((self.placeholder,) * num_vectors), *self.ids(question + "\n"))
        return ids, range(len(before), len(before) + num_vectors)

    def target(self, text: str) -> Ids:
        """Ids of an answer, the end-of-text token included."""
        return (*self.ids(text), self.end)

    def text(self, ids: Sequence[int]) -> str:
        """What ids say, up to the end-of-text token."""
        ids = list(ids)
        return str(self.tokenizer.decode(ids[: ids.index(self.end)] if self.end in ids else ids)).strip()

    def questions(self, task: str, about: str = "", *, number: int | None = None, held_out: bool = False) -> list[Question]:
        """Every wording of a question (training's, or the held-out one); ``number`` names a step. Empty for an unknown task."""
        if task not in self.wordings:
            return []
        trained, other = self.wordings[task]
        before = "" if number is None else f"{number} "
        name = about.replace("_", " ")
        return [Question(task, about, before + wording.format(name)) for wording in ([other] if held_out else trained)]


def labelled(prompt: Ids, target: Ids) -> tuple[Ids, Ids]:
    """Ids and labels of an example: all of the target is to be predicted, its first token, too, and nothing of the prompt."""
    ids, labels = (*prompt, *target), (*(IGNORE,) * len(prompt), *target)
    assert target, "an example without a label"
    assert labels[len(prompt)] == target[0] != IGNORE, "an example without a label on its first target token"
    return ids, labels


@dataclass(frozen=True)
class Item:
    """One step of one problem, and the slot that should hold it."""

    problem: int
    step: int
    slot: int


@dataclass
class Material:
    """A store laid out for questions: its vectors, its steps, and what they say."""

    store: ThoughtStore
    grammar: Grammar
    layers: tuple[int, ...] = (0,)
    latents_per_step: int = 1
    rows: list[dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        self.rows = self.store.rows

    @cached_property
    def states(self) -> Tensor:
        """``[problems, slots, layers, width]``."""
        import torch

        return torch.stack([self.store.layer(layer) for layer in self.layers], dim=2)

    @cached_property
    def items(self) -> list[Item]:
        """All steps for which there is a slot: step j belongs to the last of its slots."""
        c = self.latents_per_step
        return [
            Item(i, j, (j + 1) * c - 1)
            for i, row in enumerate(self.rows)
            for j in range(len(row["steps"]))
            if (j + 1) * c <= row["num_slots"]
        ]

    @cached_property
    def labels(self) -> list[dict[str, str]]:
        """Fields of each item's step."""
        return self.grammar.labels([self.step(item) for item in self.items])

    @property
    def num_slots(self) -> int:
        """Slots of the longest prompt."""
        return int(self.states.shape[1])

    def step(self, item: Item) -> str:
        """Text of an item's step."""
        return str(self.rows[item.problem]["steps"][item.step])

    def vectors(self, problem: int, slots: Sequence[int]) -> Tensor:
        """``[slots * layers, width]``: what the placeholders of a question stand for."""
        return self.states[problem, list(slots)].flatten(0, 1)

    def last(self, problem: int) -> tuple[int, ...]:
        """The last slot of a problem."""
        return (max(self.rows[problem]["num_slots"] - 1, 0),)

    def all(self, problem: int) -> tuple[int, ...]:
        """All slots there are; those beyond a problem's own hold zeros."""
        return tuple(range(self.num_slots))


Statement = tuple[str, Callable[[dict[str, str]], bool | None]]
"""What a yes/no question states, and whether it holds for a step's fields (None: the step does not say)."""


def statements(labels: Sequence[dict[str, str]]) -> list[Statement]:
    """Statements about fields: ``carry out`` for one that is 0 or 1, ``write > 4`` for numbers (4: the median of training)."""
    found: list[Statement] = []
    for name in sorted({name for fields in labels for name in fields}):
        values = [fields[name] for fields in labels if name in fields]
        if set(values) == {"0", "1"}:
            found.append((name, lambda fields, name=name: None if name not in fields else fields[name] == "1"))  # type: ignore[misc]
        elif all(value.lstrip("-").replace(".", "", 1).isdecimal() for value in values) and len(set(values)) > 2:
            middle = float(median(map(float, values)))
            if max(map(float, values)) == middle:
                continue
            text = f"{name}>{middle:g}"
            found.append((text, lambda fields, name=name, m=middle: None if name not in fields else float(fields[name]) > m))  # type: ignore[misc]
    return found


class Mixture:
    """The questions of training, drawn anew for each epoch."""

    def __init__(self, material: Material, writer: Writer, options: OracleOptions) -> None:
        self.material, self.writer, self.options = material, writer, options
        self.statements = statements(material.labels)
        pools: dict[tuple[str, bool], list[int]] = {}
        for i, fields in enumerate(material.labels):
            for text, holds in self.statements:
                if (said := holds(fields)) is not None:
                    pools.setdefault((text, said), []).append(i)
        self.pools = pools
        self.kinds = [text for text, _ in self.statements if (text, True) in pools and (text, False) in pools]
        weights = {task: weight for task, weight in options.tasks.items() if weight and task in writer.wordings}
        if not any(material.labels) or len(material.grammar.values) < 2:
            weights.pop("field", None)
        asked = foretold(material.rows) if "foretell" in weights else {}
        self.foretold = [[(text, sides(material.rows, holds)) for text, holds in stated] for stated in asked.values() if stated]
        if not self.foretold:
            weights.pop("foretell", None)
        self.weights = weights

    def __len__(self) -> int:
        """Examples in an epoch: as many as there are steps."""
        return len(self.material.items)

    def draw(self, seed: str) -> list[Example]:
        """The examples of an epoch; each step's own question comes up before any comes up twice."""
        rng = random.Random(seed)
        order = list(range(len(self)))
        rng.shuffle(order)
        tasks = rng.choices(list(self.weights), list(self.weights.values()), k=len(self))
        shares = (self.options.text_share, self.options.none_share, self.options.text_only_share)
        kinds = rng.choices(("text", "none", "text_only", "vector"), (*shares, 1 - sum(shares)), k=len(self))
        return [self._example(i, task, kind, rng) for i, task, kind in zip(order, tasks, kinds, strict=True)]

    def _example(self, i: int, task: str, given: str, rng: random.Random) -> Example:
        item = self.material.items[i]
        if given == "text":
            return Example(item.problem, (), None)
        if task == "foretell":
            return self._foretold(given, rng)
        row = self.material.rows[item.problem]
        if task in ("answer", "problem"):
            is_last = task == "answer" and self.options.thoughts == "one" and rng.random() < 0.5
            slots = self.material.last(item.problem) if is_last else self.material.all(item.problem)
            question = rng.choice(self.writer.questions(task))
            if task == "problem" and given == "text_only":
                given = "vector"  # the text would be the answer
            return Example(item.problem, slots, question, row["gold"] if task == "answer" else row["question"], given)
        about, target = "", self.material.step(item)
        if task == "field":
            fields = self.material.labels[i]
            if fields:
                about = rng.choice(sorted(fields))
                target = fields[about]
            else:
                task = "step"
        elif task == "yes_no":
            item, about, target = self._yes_no(item, rng)
        is_numbered = self.options.thoughts == "all" or given == "text_only"
        question = rng.choice(self.writer.questions(task, about, number=item.step + 1 if is_numbered else None))
        slots = (item.slot,) if self.options.thoughts == "one" else self.material.all(item.problem)
        return Example(item.problem, slots, question, target, given)

    def _foretold(self, given: str, rng: random.Random) -> Example:
        """A statement about the run's own answer, then whether it holds, then a problem for which that is so."""
        text, problems = rng.choice(rng.choice(self.foretold))
        holds = rng.random() < 0.5
        problem = rng.choice(problems[holds])
        question = rng.choice(self.writer.questions("foretell", text))
        return Example(problem, self.material.all(problem), question, YES if holds else NO, given)

    def _yes_no(self, item: Item, rng: random.Random) -> tuple[Item, str, str]:
        """A statement that holds as often as not: the answer is drawn first, then a step it is true of."""
        holds = rng.random() < 0.5
        kind = rng.choice([*self.kinds, "same"])
        if kind == "same":
            return item, same_problem(self.material, item.problem, holds, rng), YES if holds else NO
        return self.material.items[rng.choice(self.pools[kind, holds])], kind, YES if holds else NO


def same_problem(material: Material, problem: int, holds: bool, rng: random.Random) -> str:
    """The statement that a thought belongs to a problem: to its own where that ``holds``, else to another one."""
    rows = material.rows
    other = (problem + 1 + rng.randrange(max(len(rows) - 1, 1))) % len(rows)
    return f"of {rows[problem if holds else other]['question']}"


def plain_texts(material: Material, tokenizer: Any, around: Frame) -> list[Encoded]:
    """The problems themselves as the run was trained to read them, in the oracle's tokens."""
    return encode(material.store.problems, tokenizer, around=around)


def text_example(problem: Encoded) -> tuple[Ids, Ids]:
    """Ids and labels of plain text: question, chain, answer."""
    whole = join(problem, None, steps=range(len(problem.steps)))
    return whole.ids, whole.labels
