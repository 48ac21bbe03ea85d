"""What probes are asked: labels of every step of every problem; and what they are held against.

Controls: random labels by type of step (Hewitt and Liang 2019, arXiv 1909.03368), and the question itself as the input.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from latent_lab.problems import Problem
from latent_lab.thoughts.grammar import Grammar
from latent_lab.thoughts.store import StoreError, ThoughtStore

NONE = -1
"""The label of a step that has none."""
SUM = re.compile(r"\s*([0-9]+)\s*\+\s*([0-9]+)\s*=?\s*")
TOKEN = re.compile(r"[0-9]|[^\W\d]+|[^\w\s]")
LEAST_SEEN, MOST_FEATURES = 5, 1024
"""Training questions a feature must occur in, and how many features are kept, the most frequent first."""
NUM_TABLES = 5
"""Tables of random labels a control task is averaged over."""


@dataclass(frozen=True)
class Targets:
    """Labels of all steps of a store's problems."""

    problems: list[str]
    """``[problems]``: ids."""
    steps: list[tuple[str, ...]]
    """``[problems]``: texts of the steps."""
    labels: dict[str, Tensor]
    """For each field ``[problems, steps]``: number of its value, -1 where the step has none that is known."""
    is_counted: Tensor
    """``[problems, steps]``: steps that count for the strict score; see :meth:`Grammar.is_counted`."""

    is_whole: Tensor
    """``[problems, steps]``: steps all of whose fields have a value that is known; no reader can say the others in full."""

    @property
    def num_steps(self) -> int:
        """The most steps that are looked at."""
        return self.is_counted.shape[1]

    def types(self, step: int) -> list[str]:
        """``[problems]``: the text of a step; empty where a problem has no such step."""
        return [steps[step] if step < len(steps) else "" for steps in self.steps]

    def strata(self, step: int) -> list[str]:
        """``[problems]``: how many steps the problem has, and which fields this one has."""
        there = torch.stack([y[:, step] >= 0 for y in self.labels.values()], dim=1).int().tolist()
        return [f"{len(steps)}/{fields}" for steps, fields in zip(self.steps, there, strict=True)]


def targets(store: ThoughtStore, grammar: Grammar, num_steps: int) -> Targets:
    """Label the first ``num_steps`` steps of every problem."""
    rows = store.rows
    steps = [tuple(row["steps"]) for row in rows]
    texts = sorted({text for each in steps for text in each[:num_steps]})
    known = dict(zip(texts, grammar.labels(texts), strict=True))
    numbers = {field: {value: i for i, value in enumerate(values)} for field, values in grammar.values.items()}
    labels = {field: torch.full((len(rows), num_steps), NONE) for field in grammar.values}
    is_counted, is_whole = (torch.zeros(len(rows), num_steps, dtype=torch.bool) for _ in range(2))
    asked = {text: set(grammar.parse(text) or {}) & set(grammar.values) for text in texts}
    for i, each in enumerate(steps):
        for j, text in enumerate(each[:num_steps]):
            is_counted[i, j] = grammar.is_counted(text)
            is_whole[i, j] = bool(asked[text]) and asked[text] == set(known[text])
            for field, value in known[text].items():
                labels[field][i, j] = numbers[field][value]
    return Targets([row["id"] for row in rows], steps, labels, is_counted, is_whole)


def key_of(problem: Problem) -> str:
    """What makes two problems the same: the question; for a sum its operands in either order."""
    asked = SUM.fullmatch(problem.question)
    return "+".join(sorted(asked.groups())) if asked else problem.question


def check_apart(train: ThoughtStore, test: ThoughtStore) -> None:
    """Raise :class:`StoreError` where two stores share a problem: a probe would be graded on what it was fitted on."""
    known = {key_of(problem) for problem in train.problems}
    if shared := [problem for problem in test.problems if key_of(problem) in known]:
        raise StoreError(
            f"{train.folder} and {test.folder} share {len(shared)} problems, such as {shared[0].question!r}; "
            "allowed are stores of two splits without a problem in common (sums in either order are one problem)"
        )


def tables(types: Sequence[str], labels: Sequence[int], seed: int, num_tables: int = NUM_TABLES) -> Tensor:
    """``[tables, problems]``: control labels, which hang on the type of each problem's step alone; -1 where it has no label.

    The types' own labels are dealt out to the types again, in each table anew: as many types have each label as before. (Labels
    drawn independently would by chance favour some, and be easier to guess than those of the task.)
    """
    own = {text: label for text, label in zip(types, labels, strict=True) if label >= 0}
    order = sorted(own)
    dealt = torch.tensor([own[text] for text in order] + [NONE])
    place = {text: i for i, text in enumerate(order)}
    index = torch.tensor([place[text] if label >= 0 else len(order) for text, label in zip(types, labels, strict=True)])
    generator = torch.Generator().manual_seed(seed)
    mixed = [torch.cat([torch.randperm(len(order), generator=generator), torch.tensor([len(order)])]) for _ in range(num_tables)]
    return torch.stack([dealt[each][index] for each in mixed])


def question_features(train: Sequence[str], test: Sequence[str]) -> tuple[Tensor, Tensor]:
    """``[problems, features]`` of both: which token stands at which place, as ones and zeros.

    Places are counted from the right, in the question for every token, and for digits also in their number: the units of the
    first operand are one place, however long the second is. Features are those of training questions.
    """
    counts = Counter(feature for question in train for feature in features_of(question))
    kept = [feature for feature, count in counts.most_common(MOST_FEATURES) if count >= LEAST_SEEN]
    place = {feature: i for i, feature in enumerate(sorted(kept))}

    def encoded(questions: Sequence[str]) -> Tensor:
        out = torch.zeros(len(questions), max(len(place), 1))
        for row, question in enumerate(questions):
            out[row, [place[f] for f in features_of(question) if f in place]] = 1.0
        return out

    return encoded(train), encoded(test)


def features_of(question: str) -> set[str]:
    """The features of one question, by name."""
    found = {f"{place} from the right: {token}" for place, token in enumerate(reversed(TOKEN.findall(question)))}
    for number, digits in enumerate(re.findall(r"[0-9]+", question)):
        found |= {f"number {number}, {place} from its right: {digit}" for place, digit in enumerate(reversed(digits))}
    return found
