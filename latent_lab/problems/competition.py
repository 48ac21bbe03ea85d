"""Sets whose rows must be parsed: MATH (arXiv 2103.03874) and AQuA-RAT (arXiv 1705.04146)."""

import logging
import re
from dataclasses import dataclass, field
from typing import Any, ClassVar

from latent_lab.problems import DataError, Problem
from latent_lab.problems.choices import LETTERS, check_letter, with_options
from latent_lab.problems.files import Row, mapping, text_of, value_of, wrong
from latent_lab.problems.hub import Hub, read

log = logging.getLogger(__name__)

SUBJECTS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)
BOX = re.compile(r"\\f?box(?:ed)?\s*(\{|\S)")
"""What announces the final answer: ``\\boxed{...}`` or ``\\fbox{...}``, or a single character without braces."""


@dataclass
class MATH(Hub):
    """Competition problems in LaTeX. The lines of the worked solution are the steps, and what it boxes last is the answer."""

    question: str = "problem"
    steps: str = "solution"
    subjects: list[str] = field(default_factory=lambda: list(SUBJECTS))
    """Subjects read from the hub, each a configuration there. A local file is read whole."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.subjects or not set(self.subjects) <= set(SUBJECTS):
            raise ValueError(f"subjects={self.subjects}: allowed are {', '.join(SUBJECTS)}")

    def download(self, published: str) -> list[Problem]:
        """Read a split of every subject; ids are such as ``algebra-test-17``."""
        rows = {subject: read(self.name, subject, published, self.revision) for subject in self.subjects}
        return [problem for subject in rows for problem in self.problems(rows[subject], f"{subject}-{published}")]

    def problems(self, rows: list[Row], stem: str) -> list[Problem]:
        """Turn rows into Problems; those whose last box is empty, as in some of the published training split, are left out."""
        records = [self._with_answer(row) for row in rows]
        kept = [row._replace(record=record) for row, record in zip(rows, records, strict=True) if record[self.answer]]
        if len(kept) < len(rows):
            log.warning("%s: %d of %d solutions box an empty answer and are left out", stem, len(rows) - len(kept), len(rows))
        return super().problems(kept, stem)

    def _with_answer(self, row: Row) -> dict[str, Any]:
        record = mapping(row.record, row.where)
        solution = text_of(value_of(record, self.steps, "steps", row.where), self.steps, row.where)
        answer = boxed(solution)
        if answer is None:
            raise DataError(f"{row.where}, field '{self.steps}': boxes no answer; it must hold \\boxed{{ANSWER}}: mend the row")
        return record | {self.answer: answer}


@dataclass
class AQuA(Hub):
    """Multiple-choice problems. The options stand in the question, the answer is a letter, lines of the rationale are steps."""

    steps: str = "rationale"
    answer: str = "correct"
    options: str = "options"
    """Field of the choices: a list of texts such as ``A)21``."""
    equivalence: ClassVar[str] = "choice"

    def problem(self, row: Row, stem: str) -> Problem:
        """Turn one row into a Problem; options that are no list of texts raise :class:`DataError`."""
        record = mapping(row.record, row.where)
        options = value_of(record, self.options, "options", row.where)
        if not isinstance(options, list) or not options or not all(isinstance(option, str) for option in options):
            raise wrong(options, self.options, row.where, "a list of texts, such as A)21, B)22")
        check_letter(value_of(record, self.answer, "answer", row.where), self.answer, len(options), row.where)
        plain = [without_letter(text, letter) for letter, text in zip(LETTERS, options, strict=False)]
        asked = text_of(value_of(record, self.question, "question", row.where), self.question, row.where)
        return super().problem(row._replace(record=record | {self.question: with_options(asked, plain)}), stem)


def without_letter(option: str, letter: str) -> str:
    """Return the text of an option such as ``A)21``."""
    return option.strip().removeprefix(f"{letter})").strip()


def boxed(solution: str) -> str | None:
    """Return what the last box of a solution holds, single blanks its only white space; None where there is no whole box."""
    found = list(BOX.finditer(solution))
    if not found:
        return None
    if found[-1][1] != "{":
        return found[-1][1]
    depth, start = 1, found[-1].end()
    for end in range(start, len(solution)):
        if solution[end] in "{}" and solution[end - 1] != "\\":  # \\{ and \\} are braces that are shown
            depth += 1 if solution[end] == "{" else -1
        if depth == 0:
            return " ".join(solution[start:end].split())
    return None
