"""GSM8K (arXiv 2110.14168): grade-school word problems with worked solutions, from the hub or from local files.

A published solution is text with calculation annotations, and the answer in its last line: ``She ate 48/2 = <<48/2=24>>24
nuts.``, ``#### 24``. The publishers have no validation split: the end of their training file becomes ours. GSM8K-Platinum (arXiv
2502.03461), its test split annotated anew, has the same form.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from latent_lab.problems import DataError, Problem, Split
from latent_lab.problems.checks import is_number
from latent_lab.problems.files import Records, Row, found, mapping, read, text_of, value_of
from latent_lab.problems.hub import no_split
from latent_lab.problems.hub import read as read_hub

STEPS = ("equations", "text")
ANNOTATION = re.compile(r"<<[^<>]*>>")
ANSWER_MARK = "####"


@dataclass
class GSM8K:
    """GSM8K's published rows, with steps as the annotated equations alone or as the solution's sentences."""

    name: str = "openai/gsm8k"
    """``owner/name`` on the hub; its configuration ``main`` is read."""
    revision: str | None = None
    """Commit, tag or branch on the hub."""
    path: str | None = None
    """Local folder holding train and test (.parquet, .jsonl or .json), to read instead of the hub."""
    has_train: bool = True
    """Whether the publishers have a training split."""
    test_rows: int | None = None
    """Rows of the published test split; the hub must hold as many, or results would not compare. null: any number."""
    may_lack_steps: bool = True
    """Whether rows without a chain may be trained on: 113 of the published 8,792 have no equation."""
    valid_size: int = 500
    """Rows at the end of the published training file that become the validation split."""
    steps: str = "equations"
    """``equations``: every ``<<a=b>>`` is a step, brackets included; ``text``: every line is, without the annotations."""

    def __post_init__(self) -> None:
        if self.steps not in STEPS:
            raise ValueError(f"steps={self.steps}: allowed are {', '.join(STEPS)}")
        if self.valid_size < 0:
            raise ValueError(f"valid_size={self.valid_size}: allowed are 0 and more")

    def load(self, split: Split) -> list[Problem]:
        """Read one whole split, or raise :class:`DataError`; an id such as ``train-17`` names the published file's row."""
        if split != "test" and not self.has_train:
            raise no_split(self.name, split, ["test"])
        published: Split = "test" if split == "test" else "train"
        if self.path is None:
            rows = read_hub(self.name, "main", published, self.revision)
            if published == "test" and self.test_rows not in (None, len(rows)):
                raise DataError(
                    f"{self.name}: its test split holds {len(rows)} rows, {self.test_rows:,} were published: another version; "
                    "allowed: the pinned dataset.revision, or dataset.test_rows=null"
                )
        else:
            rows = read(found(Path(self.path).expanduser(), published))
        problems = Records().problems([self._with_steps(row) for row in rows], published)
        if split == "test":
            return problems
        if self.valid_size >= len(problems):
            raise DataError(f"dataset.valid_size={self.valid_size}: allowed are less than the {len(problems)} training rows")
        cut = len(problems) - self.valid_size
        return problems[:cut] if split == "train" else problems[cut:]

    def _with_steps(self, row: Row) -> Row:
        record = mapping(row.record, row.where)
        text = text_of(value_of(record, "answer", "answer", row.where), "answer", row.where)
        solution, mark, answer = text.rpartition(ANSWER_MARK)
        if not mark:
            raise DataError(
                f"{row.where}, field 'answer': has no {ANSWER_MARK}; it must end with {ANSWER_MARK} and the answer: "
                "read files of another form with dataset=file"
            )
        answer = answer.strip()
        if answer and not is_number(answer):  # an empty one is refused with every other empty field
            raise DataError(
                f"{row.where}, field 'answer': found {answer!r} after {ANSWER_MARK}; allowed: a number such as -12 or 1,080"
            )
        steps = ANNOTATION.findall(solution) if self.steps == "equations" else ANNOTATION.sub("", solution)
        return row._replace(record=record | {"steps": steps, "answer": answer.replace(",", "")})
