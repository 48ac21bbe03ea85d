"""Problems from a local file (JSON, JSONL, parquet, text), and the one way a record becomes a Problem (hub.py shares it)."""

import csv
import hashlib
import io
import json
import logging
import re
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from latent_lab.problems import DataError, Problem, Split
from latent_lab.problems.checks import is_number

log = logging.getLogger(__name__)

SUFFIXES = (".csv", ".json", ".jsonl", ".parquet", ".txt")
STEMS: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "valid": ("valid", "validation", "val", "dev"),
    "test": ("test",),
}
NAME = "id"
"""The field that names problems in the files which this laboratory writes, and in many others."""


class NoSplit(DataError):
    """A split that the dataset does not have; its other splits may be read."""


class Row(NamedTuple):
    """One record as it was read, not yet checked."""

    number: int
    """Counted from 1: the line of a JSONL file, elsewhere the record."""
    where: str
    """What an error calls it, such as ``data/train.jsonl, line 3``."""
    record: object


@dataclass
class Records:
    """Which fields of a record make a Problem; all other fields that JSON can hold go to its ``meta``."""

    question: str = "question"
    """Field of the question: text. Several, joined by ``+``, are read one after another (``Body+Question``)."""
    steps: str = "steps"
    """Field of the chain of thought: a list of one-line texts, or one text with a step a line. A record may lack it."""
    answer: str = "answer"
    """Field of the answer: one line of text, or a number."""
    may_lack_steps: bool = False
    """Whether rows without a chain may be trained on by methods that make chains latent; else the first one stops the run."""
    plain_numbers: bool = False
    """Write answers that are numbers without the commas between thousands: ``1,080`` becomes ``1080``."""
    id: str = ""
    """Field of a unique text or whole number; empty: problems are named by split or file and row, such as ``valid-17``."""
    valid_share: float = 0.1
    """Where no validation data exist: share of the questions, chosen by a hash of their text, taken from training for it."""

    def __post_init__(self) -> None:
        if not 0 <= self.valid_share < 1:
            raise ValueError(f"valid_share={self.valid_share}: allowed are shares from 0 to less than 1")

    def problems(self, rows: list[Row], stem: str) -> list[Problem]:
        """Turn rows (at least one) into Problems named ``stem-number``, or raise :class:`DataError` at the first bad one."""
        self._check_steps_field(rows)
        problems = [self.problem(row, stem) for row in rows]
        first: dict[str, Row] = {}
        for row, problem in zip(rows, problems, strict=True):
            if first.setdefault(problem.id, row) is not row:
                raise DataError(
                    f"{row.where}, field '{self.id}': {problem.id!r} is already the id of {first[problem.id].where}; ids "
                    "must be unique: change one, or leave dataset.id empty to name problems by their row"
                )
        return problems

    def problem(self, row: Row, stem: str) -> Problem:
        """Turn one row into a Problem, or raise :class:`DataError`."""
        record = mapping(row.record, row.where)
        answer = value_of(record, self.answer, "answer", row.where)
        if is_int(answer) or (isinstance(answer, float) and isfinite(answer)):
            answer = plain(answer)
        if self.plain_numbers and isinstance(answer, str) and is_number(answer):
            answer = answer.replace(",", "")
        asked = self.question.split("+")
        texts = [text_of(value_of(record, field, "question", row.where), field, row.where) for field in asked]
        name = f"{stem}-{row.number}"
        if self.id:
            given = value_of(record, self.id, "id", row.where)
            name = line_of(str(given) if is_int(given) else given, self.id, row.where, "text and whole numbers")
        used = (*asked, self.steps, self.answer, self.id)
        return Problem(
            id=name,
            question=" ".join(texts),
            steps=self._steps(record, row.where),
            answer=line_of(answer, self.answer, row.where, "text and finite numbers"),
            meta={key: value for key, value in record.items() if key not in used and fits_json(value)},
        )

    def share(self, problems: list[Problem], split: Split) -> list[Problem]:
        """Take the train or valid part of problems that come undivided; equal questions always share a part."""
        part = [problem for problem in problems if (hash_of(problem.question) < self.valid_share) == (split == "valid")]
        if not part and self.valid_share:
            raise NoSplit(
                f"dataset.valid_share={self.valid_share} of {len(problems)} problems leaves none for {split}: "
                "change it (0 does without validation), or give validation data of their own"
            )
        return part

    def local(self, given: str, split: Split) -> list[Problem]:
        """Read a split from a folder of files, or from one file: wholly the test split, divided for training."""
        if not given:
            raise DataError(f"dataset.path is empty: give a file ({', '.join(SUFFIXES)}) or a folder of them")
        path = Path(given).expanduser()
        if path.is_dir() and (split == "test" or find(path, "valid")):
            return self._read(found(path, split))
        problems = self._read(found(path, "train") if path.is_dir() else path)
        return problems if split == "test" else self.share(problems, split)

    def _read(self, path: Path) -> list[Problem]:
        return self.problems(read(path), path.stem)

    def _steps(self, record: dict[str, Any], where: str) -> tuple[str, ...]:
        steps = record.get(self.steps)
        if steps is None or steps == [""]:  # the second is how Coconut's converter writes an empty chain
            return ()
        if isinstance(steps, str):
            steps = [line for line in steps.split("\n") if line.strip()]
        if not isinstance(steps, list):
            raise wrong(steps, self.steps, where, "a list of texts, or one text with a step a line")
        return tuple(line_of(step, f"{self.steps}[{index}]", where) for index, step in enumerate(steps))

    def _check_steps_field(self, rows: list[Row]) -> None:
        """Refuse a chosen name that no record has: a whole dataset would lose its steps unnoticed."""
        if self.steps != Records.steps and not any(self.steps in mapping(row.record, row.where) for row in rows):
            fields = names(mapping(rows[0].record, rows[0].where))
            raise DataError(f"dataset.steps={self.steps}: no record has this field; {rows[0].where} has {fields}")


@dataclass
class File(Records):
    """A local file, or a folder of them: a list of records (.json), a record a line (.jsonl, .txt), a table (.csv, .parquet)."""

    path: str = ""
    """A file, or a folder holding train, valid (or validation, val, dev) and test with one of the five suffixes.
    A single file is wholly the test split, and divided by ``valid_share`` for training: it serves one or the other."""

    def load(self, split: Split) -> list[Problem]:
        """Read one whole split, or raise :class:`DataError` naming file, row and field."""
        problems = self.local(self.path, split)
        if not self.id and have_names(problems):
            tell_of_names(self.path)
        return problems


def have_names(problems: Sequence[Problem]) -> bool:
    """Say whether a field ``id``, which nobody chose, would name every problem."""
    given = [problem.meta.get(NAME) for problem in problems]
    different = {str(name).strip() for name in given if is_int(name) or isinstance(name, str)}
    return len(different) == len(given)


@cache
def tell_of_names(path: str) -> None:
    """Say so once for each path. They are not taken unasked: two splits may have equal ones, and chance goes by names."""
    log.warning("%s: its field '%s' names no problem, their rows do; dataset.id=%s takes it", path, NAME, NAME)


def found(folder: Path, split: Split) -> Path:
    """Return the file of a split in a folder, or raise :class:`DataError` if there is none or more than one."""
    path = find(folder, split)
    if path is None:
        raise NoSplit(
            f"{folder}: holds no file for the {split} split; allowed are "
            f"{', '.join(STEMS[split])} with one of {', '.join(SUFFIXES)}: add one, or give the path of a single file"
        )
    return path


def find(folder: Path, split: Split) -> Path | None:
    """Return the file of a split in a folder, None if there is none; more than one raise :class:`DataError`."""
    paths = [path for stem in STEMS[split] for suffix in SUFFIXES if (path := folder / f"{stem}{suffix}").is_file()]
    if len(paths) > 1:
        raise DataError(f"{folder}: {' and '.join(path.name for path in paths)} are both the {split} split: remove one")
    return paths[0] if paths else None


def read(path: Path) -> list[Row]:
    """Read all rows of a file by its suffix; none at all, or a file that cannot be read, raise :class:`DataError`."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; relative paths start at {Path.cwd()}")
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: the suffix is {path.suffix!r}; allowed are {', '.join(SUFFIXES)}: convert or rename the file")
    try:
        rows = _read_parquet(path) if path.suffix == ".parquet" else _read_text(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({first_line(error)})") from error
    if not rows:
        raise DataError(f"{path}: holds no record; at least one is needed")
    return rows


def _read_text(path: Path) -> list[Row]:
    readers = {".jsonl": _parse_lines, ".txt": _parse_chains, ".json": _parse_list, ".csv": parse_table}
    return readers[path.suffix](path, decoded(path))


def decoded(path: Path) -> str:
    """Return the text of a file in UTF-8, or raise :class:`DataError` naming the line that is none."""
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        byte = f"0x{raw[error.start]:02x}"
        raise DataError(f"{path}, line {line}: byte {byte} is not UTF-8: save the file as UTF-8") from error


def parse_table(path: Path, text: str) -> list[Row]:
    """Read comma-separated values; every cell is text without blanks around it. Rows count as in a spreadsheet, the header 1."""
    try:
        all_lines = enumerate(csv.reader(io.StringIO(text, newline="")), start=1)
        lines = [(number, line) for number, line in all_lines if any(map(str.strip, line))]
    except csv.Error as error:
        raise DataError(f"{path}: no table of comma-separated values ({error}): write the file again") from error
    if len(lines) < 2:
        raise DataError(f"{path}: holds no row below its header; at least one is needed")
    header = [cell.strip() for cell in lines[0][1]]
    if twice := [name for name in header if header.count(name) > 1]:
        raise DataError(f"{path}, row 1: column '{twice[0]}' stands there twice; allowed: once")
    rows = []
    for number, line in lines[1:]:
        where = f"{path}, row {number}"
        if len(line) != len(header):
            raise DataError(f"{where}: {len(line)} cells, the header has {len(header)}; allowed: equally many")
        rows.append(Row(number, where, dict(zip(header, map(str.strip, line), strict=True))))
    return rows


def _parse_chains(path: Path, text: str) -> list[Row]:
    """Read the form of the stepwise internalisation papers, ``question||<<a=b>> <<c=d>> #### answer``; a chain may be empty."""
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            question, bars, solution = line.partition("||")
            chain, mark, answer = solution.rpartition("####")
            if not (bars and mark):
                raise DataError(
                    f"{where}: found {shown(line)}; every line of a .txt file is QUESTION||<<A=B>> <<C=D>> #### ANSWER"
                )
            steps = [step for step in re.split(r"(?<=>>)\s+(?=<<)", chain.strip()) if step]
            rows.append(Row(number, where, {"question": question, "steps": steps, "answer": answer.strip()}))
    return rows


def _parse_lines(path: Path, text: str) -> list[Row]:
    rows = []
    # Not splitlines: it also cuts at characters such as U+2028, which JSON text may hold.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            rows.append(Row(number, where, parsed(line, where, "every line of a .jsonl file is one record, whole")))
    return rows


def _parse_list(path: Path, text: str) -> list[Row]:
    if not text.strip():
        return []
    advice = "a .json file is one list of records; with a record a line its name ends in .jsonl"
    records = parsed(text, str(path), advice)
    if not isinstance(records, list):
        raise DataError(f"{path}: found {shown(records)}; {advice}")
    return [Row(number, f"{path}, record {number}", record) for number, record in enumerate(records, start=1)]


def parsed(text: str, where: str, advice: str) -> object:
    """Return what a text says in JSON, or raise :class:`DataError` with the place and the advice."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}" if "\n" in text else f"column {error.colno}"
        raise DataError(f"{where}: no valid JSON at {place} ({error.msg}); {advice}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; thousands of nested lists
        raise DataError(f"{where}: JSON beyond what can be read ({first_line(error)}); {advice}") from error


def _read_parquet(path: Path) -> list[Row]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        records = ParquetFile(path).read().to_pylist()
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: no valid parquet ({first_line(error)}): write the file again") from error
    return [Row(number, f"{path}, record {number}", record) for number, record in enumerate(records, start=1)]


def mapping(record: object, where: str) -> dict[str, Any]:
    """Return the record if it is an object with named fields, or raise :class:`DataError`."""
    if not isinstance(record, dict):
        raise DataError(f"{where}: found {shown(record)}; a record is an object with fields such as question and answer")
    return record


def value_of(record: dict[str, Any], name: str, role: str, where: str) -> object:
    """Return a field that must be there; ``role`` is the option under ``dataset`` that names it."""
    if name not in record:
        raise DataError(f"{where}, field '{name}': missing among {names(record)}: add it, or name it by dataset.{role}")
    value: object = record[name]
    return value


def text_of(value: object, name: str, where: str, allowed: str = "text") -> str:
    """Return a text without the white space around it; anything else, or an empty one, raises :class:`DataError`."""
    if not isinstance(value, str):
        raise wrong(value, name, where, allowed)
    if not (text := value.strip()):
        raise DataError(f"{where}, field '{name}': found an empty text; fill it in or remove the record")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise DataError(f"{where}, field '{name}': found half of a surrogate pair in {shown(text)}; write it as UTF-8")
    return text


def line_of(value: object, name: str, where: str, allowed: str = "text") -> str:
    """Return a text of a single line as :func:`text_of` does."""
    text = text_of(value, name, where, allowed)
    if "\n" in text or "\r" in text:
        raise DataError(f"{where}, field '{name}': found several lines, {shown(text)}; allowed is one line of text")
    return text


def wrong(value: object, name: str, where: str, allowed: str) -> DataError:
    """Say that a field holds a value of a type it may not hold."""
    return DataError(f"{where}, field '{name}': found {shown(value)}; allowed: {allowed}")


def is_int(value: object) -> TypeGuard[int]:
    """Say whether a value is a whole number; true and false, ints to Python, are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def shown(value: object) -> str:
    """Show a value briefly, with its type."""
    return f"{reprlib.repr(value)} ({type(value).__name__})"


def names(record: dict[str, Any]) -> str:
    """List the fields a record has."""
    return ", ".join(f"'{name}'" for name in record) or "no fields"


def first_line(error: Exception) -> str:
    """Return the first line of another library's message, or the error's type where it has none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def plain(number: int | float) -> str:
    """Write a finite number as people do: ``18.0`` is ``18``, ``1e-05`` is ``0.00001``; no digit is lost."""
    text = format(Decimal(repr(number + 0)), "f")  # + 0: a negative zero becomes a plain one
    return text.rstrip("0").rstrip(".") if "." in text else text


def fits_json(value: object) -> bool:
    """Say whether a value can be written as standard JSON in UTF-8."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError):
        return False
    return True


def hash_of(text: str) -> float:
    """Map a text to a number from 0 to less than 1, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest(), "big") / 2**48
