"""Cells of the tables about thoughts: scores, shares and parts of any shape as text."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from latent_lab.report.wording import plain

NOTHING = "–"
MOST_ROWS = 16
"""Rows of a part of any shape that are shown at once."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table: its name and its other cells; ``kind`` is ``model``, ``floor`` or nothing."""

    label: str
    cells: tuple[str, ...]
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table with its caption; the first of ``head`` stands above the names of the rows."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""
    is_detail: bool = False
    """Whether it is folded away until asked for."""


def share(value: float) -> str:
    """A share in percent with a digit after the point; what is not all or nothing is never written as if it were."""
    places = 1
    while 1e-9 < abs(value) < 1 - 1e-9 and abs(float(f"{100 * value:.{places}f}")) in (0, 100):
        places += 1
    return f"{100 * value:.{places}f}"


def shown(given: Any) -> str:
    """A score, a difference of scores or a bare share in percent; with its interval where it has one."""
    given = score_in(given)
    if isinstance(given, dict):
        if given.get("value") is None:
            return NOTHING
        if given.get("low") is None or given.get("high") is None:
            return share(given["value"])
        return f"{share(given['value'])} [{share(given['low'])}, {share(given['high'])}]"
    return share(given) if is_number(given) else NOTHING


def score_in(given: Any) -> Any:
    """The score itself; of a row of several measures its accuracy."""
    return given["accuracy"] if isinstance(given, dict) and "value" not in given and "accuracy" in given else given


def bare(given: Any) -> Any:
    """A score without its interval, for wide tables."""
    given = score_in(given)
    return given.get("value") if isinstance(given, dict) else given


def number(given: Any, places: int = 2) -> str:
    """A plain number that is no share, such as bits."""
    given = bare(given)
    return f"{given:.{places}f}" if is_number(given) else NOTHING


def is_number(given: Any) -> bool:
    """Whether this is a number and no yes or no."""
    return isinstance(given, int | float) and not isinstance(given, bool)


def words(name: str) -> str:
    """A key in words."""
    return name.replace("_", " ")


def value(given: Any) -> float:
    """The value of a score; less than any where there is none."""
    given = bare(given)
    return float(given) if is_number(given) else -1.0


def by_slot(given: dict[str, Any]) -> list[Any]:
    """Of rows by slot, from 0, and of all slots together, those of single slots in their order."""
    return [given[key] for key in sorted((key for key in given if key.isdecimal()), key=int)]


def as_text(given: Any) -> str:
    """Any setting as text."""
    if is_number(given):
        return f"{given:,}" if isinstance(given, int) else plain(given)
    return ", ".join(map(str, given)) if isinstance(given, list) else str(given)


def flat_table(caption: str, given: Any, *, is_detail: bool = False) -> Table:
    """A part of any shape as a table; folded away where it is long."""
    rows = tuple(flat(given))
    return Table(caption, ("what", "value"), rows, is_detail=is_detail or len(rows) > MOST_ROWS)


def flat(given: Any, name: str = "") -> Iterator[Row]:
    """Whatever a part holds as rows: a score is one row, and so is a bare value; what is inside is named by its path."""
    if isinstance(given, dict) and "value" in given and not isinstance(given["value"], dict | list):
        yield Row(name, (shown(given) + (f", n = {given['n']:,}" if is_number(given.get("n")) else ""),))
    elif isinstance(given, dict):
        for key, each in given.items():
            yield from flat(each, f"{name}, {words(str(key))}" if name else words(str(key)))
    elif isinstance(given, list) and any(isinstance(each, dict | list) for each in given):
        for index, each in enumerate(given, 1):
            yield from flat(each, f"{name} {index}" if name else str(index))
    elif given is not None:
        text = (
            number(given, 3)
            if isinstance(given, float)
            else ", ".join(map(as_text, given))
            if isinstance(given, list)
            else as_text(given)
        )
        yield Row(name, (text,))


def changes(text: str | None, before: str | None) -> list[tuple[str, bool]]:
    """An answer after an edit, cut where it differs from the one ``before``: ``[("8", False), ("3", True)]``.

    Digits are compared from the units, so that a digit more or less in front moves none of the others.
    """
    text, before = text or "", before or ""
    padded = before.rjust(len(text))[-len(text) :] if text else ""
    cut: list[tuple[str, bool]] = []
    for now, then in zip(text, padded, strict=True):
        if cut and cut[-1][1] == (now != then):
            cut[-1] = (cut[-1][0] + now, now != then)
        else:
            cut.append((now, now != then))
    return cut
