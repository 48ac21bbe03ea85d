"""Questions answered by one of the options given, or by yes or no.

CommonsenseQA (arXiv 1811.00937), TruthfulQA (arXiv 2109.07958) and StrategyQA (arXiv 2101.02235). None has a written chain:
``task=annotate`` writes some.
"""

import random
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeGuard

from latent_lab.problems import DataError, Problem, Split
from latent_lab.problems.files import NoSplit, Row, hash_of, mapping, shown, text_of, value_of, wrong
from latent_lab.problems.files import read as read_file
from latent_lab.problems.hub import Hub

LETTERS = string.ascii_uppercase
YES_OR_NO = {"true": "True", "yes": "True", "false": "False", "no": "False"}


@dataclass
class CommonsenseQA(Hub):
    """Five options each. The answers of the published test split are kept secret; the validation split is the test split here."""

    answer: str = "answerKey"
    valid_split: str | None = None
    test_split: str | None = "validation"
    choices: str = "choices"
    """Field of the options: their ``label``, A and so on, and their ``text``, two lists."""
    equivalence: ClassVar[str] = "choice"

    def problem(self, row: Row, stem: str) -> Problem:
        """Turn one row into a Problem, its options in the question, or raise :class:`DataError`."""
        record = mapping(row.record, row.where)
        choices = value_of(record, self.choices, "choices", row.where)
        held = choices if isinstance(choices, dict) else {}
        options = held.get("text")
        if not are_texts(options) or held.get("label") != list(LETTERS[: len(options)]):
            raise wrong(choices, self.choices, row.where, "label, a list of letters from A on, and text, as many texts")
        check_letter(value_of(record, self.answer, "answer", row.where), self.answer, len(options), row.where)
        asked = text_of(value_of(record, self.question, "question", row.where), self.question, row.where)
        return super().problem(row._replace(record=record | {self.question: with_options(asked, options)}), stem)


@dataclass
class TruthfulQA(Hub):
    """Questions that many people answer wrongly, with the one true answer (MC1) among options in an order of their own.

    There is one published split, in which the true answer always comes first. Differs from paper (arXiv 2411.13504, which takes
    the last fifth of the rows): a hash of the question says in which split it is, and in which order its options stand.
    """

    train_split: str | None = "validation"
    valid_split: str | None = None
    test_split: str | None = "validation"
    targets: str = "mc1_targets"
    """Field of the options: ``choices``, a list of texts, and ``labels``, 1 for the true one and 0 for the others."""
    test_share: float = 0.2
    """Share of the questions that are the test split; ``valid_share`` of the others are the validation split."""
    equivalence: ClassVar[str] = "choice"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.test_share <= 1:
            raise ValueError(f"test_share={self.test_share}: allowed are shares from 0 to 1")

    def load(self, split: Split) -> list[Problem]:
        """Read one whole split, or raise :class:`DataError`."""
        if self.path is not None:
            problems = self.problems(read_file(path := Path(self.path).expanduser()), path.stem)
        else:
            problems = self.download(str(self.test_split))
        part = [problem for problem in problems if self._split_of(problem) == split]
        if not part:
            shares = f"test_share={self.test_share}, valid_share={self.valid_share}"
            raise NoSplit(f"dataset.test_share: {shares} of {len(problems)} problems leave none for {split}; change one of them")
        return part

    def problem(self, row: Row, stem: str) -> Problem:
        """Turn one row into a Problem, its options in the question, or raise :class:`DataError`."""
        record = mapping(row.record, row.where)
        targets = value_of(record, self.targets, "targets", row.where)
        held = targets if isinstance(targets, dict) else {}
        options, labels = held.get("choices"), held.get("labels")
        counts = [labels.count(0), labels.count(1)] if isinstance(labels, list) else []
        if not are_texts(options) or not isinstance(labels, list) or counts != [len(options) - 1, 1]:
            raise wrong(targets, self.targets, row.where, "choices, a list of texts, and labels, as many numbers, one of them 1")
        asked = text_of(value_of(record, self.question, "question", row.where), self.question, row.where)
        order = list(range(len(options)))
        random.Random(f"options/{asked}").shuffle(order)
        letter = LETTERS[order.index(labels.index(1))]
        question = with_options(asked, [options[i] for i in order])
        return super().problem(row._replace(record=record | {self.question: question, self.answer: letter}), stem)

    def _split_of(self, problem: Problem) -> Split:
        place = hash_of(problem.question)
        if place < self.test_share:
            return "test"
        return "valid" if place < self.test_share + (1 - self.test_share) * self.valid_share else "train"


@dataclass
class StrategyQA(Hub):
    """Questions whose steps are implicit, answered by ``True`` or ``False``."""

    valid_split: str | None = None
    equivalence: ClassVar[str] = "yes_no"

    def choices_of(self, problem: Problem) -> tuple[str, ...]:
        """Return the answers that there are."""
        return ("True", "False")

    def problem(self, row: Row, stem: str) -> Problem:
        """Turn one row into a Problem, or raise :class:`DataError`."""
        record = mapping(row.record, row.where)
        answer = value_of(record, self.answer, "answer", row.where)
        said = YES_OR_NO.get(str(answer).strip().casefold())
        if said is None:
            raise wrong(answer, self.answer, row.where, "true or false, yes or no")
        return super().problem(row._replace(record=record | {self.answer: said}), stem)


def with_options(question: str, options: Sequence[str]) -> str:
    """A question with its options after it: ``Two and two? (A) 3 (B) 4``."""
    lettered = [f"({letter}) {text.strip()}" for letter, text in zip(LETTERS, options, strict=False)]
    return " ".join([question, *lettered])


def check_letter(answer: Any, name: str, count: int, where: str) -> None:
    """Raise :class:`DataError` for an answer that is the letter of none of ``count`` options."""
    if answer not in list(LETTERS[:count]):
        allowed = f"the letter of an option, A to {LETTERS[count - 1]}"
        raise DataError(f"{where}, field '{name}': found {shown(answer)}; allowed: {allowed}")


def are_texts(options: Any) -> TypeGuard[list[str]]:
    """Whether options are a list of texts, no more than there are letters for."""
    return isinstance(options, list) and 0 < len(options) <= len(LETTERS) and all(isinstance(each, str) for each in options)
