"""Problems: the one record every dataset yields, and the datasets (a file a family)."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")


class DataError(ValueError):
    """A dataset that cannot be read; the message names file, row and field."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One question with its written chain of thought and its answer.

    Fields hold plain text without trailing newlines; ``steps`` may be empty. ``id`` is unique within a dataset and stable across
    runs; ``meta`` carries what a dataset knows beyond the text (row, flags) and must be JSON-serialisable.
    """

    id: str
    question: str
    steps: tuple[str, ...]
    answer: str
    meta: dict[str, Any] = field(default_factory=dict, compare=False)


class Dataset(Protocol):
    """What ``dataset=`` selects: a small typed configuration that can load each of its splits."""

    def load(self, split: Split) -> list[Problem]:
        """Read one whole split, or raise :class:`DataError`; nothing is half-read."""
        ...


def rule_of(dataset: Any) -> str:
    """The rule by which answers to a dataset are equal, where it takes one of its own."""
    return getattr(dataset, "equivalence", "exact")


def fingerprint(what: Path | Sequence[Problem]) -> str:
    """A short hash of a file's bytes or of problems."""
    if isinstance(what, Path):
        with what.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()
    return hashlib.blake2b(json.dumps([astuple(p)[:4] for p in what]).encode(), digest_size=8).hexdigest()
