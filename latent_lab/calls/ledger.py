"""The ledger: one row of JSON for each HTTP call, on disk before the answer is used. Every sum is a sum of its rows."""

import fcntl
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedRandom
from pathlib import Path
from typing import Any

LEDGER = "calls.jsonl"
TOKENS = ("prompt", "cached", "completion", "reasoning")
"""What is counted of a call; ``cached`` is a part of ``prompt``, ``reasoning`` of ``completion``."""


class LedgerError(ValueError):
    """A ledger that cannot be written now, or that is none; the message says what to do."""


@dataclass
class Ledger:
    """The calls made for one folder, those of earlier processes first."""

    path: Path
    rows: list[dict[str, Any]]
    _file: BufferedRandom
    _answered: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for row in self.rows:
            self._note(row)

    def add(self, row: dict[str, Any]) -> None:
        """Append a row; when this returns, it survives a crash of the process and of the machine."""
        self._file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.rows.append(row)
        self._note(row)

    def answered(self, key: str) -> dict[str, Any] | None:
        """The row that answered the request of that key, or None."""
        return self._answered.get(key)

    def spent(self) -> tuple[int, float]:
        """Tokens (prompts and answers) and US dollars so far."""
        tokens = sum(row["tokens"]["prompt"] + row["tokens"]["completion"] for row in self.rows)
        return tokens, math.fsum(row["cost_usd"] or 0.0 for row in self.rows)

    def totals(self) -> dict[str, Any]:
        """What all calls amount to, the same in whatever order they ended; see :func:`totals`."""
        return totals(self.rows)

    def _note(self, row: dict[str, Any]) -> None:
        if row["error"] is None:
            self._answered.setdefault(row["key_sha256"], row)


def totals(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """HTTP calls, those that answered, failed and had their tokens estimated; tokens; US dollars (None: no price known)."""
    costs = [row["cost_usd"] for row in rows]
    return {
        "calls": len(rows),
        "answered": sum(row["error"] is None for row in rows),
        "failed": sum(row["error"] is not None for row in rows),
        "estimated": sum(row["is_estimate"] for row in rows),
        "tokens": {name: sum(row["tokens"][name] for row in rows) for name in TOKENS},
        # fsum, because which call ends first is chance, and a sum of floats in another order is another number.
        "cost_usd": None if any(cost is None for cost in costs) else math.fsum(costs),
    }


@contextmanager
def open_ledger(folder: Path) -> Iterator[Ledger]:
    """Open ``calls.jsonl`` in ``folder`` for this process alone; LedgerError where another one has it open.

    A last row torn by a crash is cut off.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LEDGER
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LedgerError(
                f"{path} is being written by another process: wait for it to end, or take another folder"
            ) from error
        file.seek(0)
        rows, whole = parsed(path, file.read())
        file.truncate(whole)
        if whole:
            file.seek(whole - 1)
            if file.read(1) != b"\n":
                file.write(b"\n")
        yield Ledger(path, rows, file)


def read_ledger(folder: Path) -> list[dict[str, Any]]:
    """The whole rows of a folder's ledger, none where it has no ledger; a torn last row is left out."""
    path = folder / LEDGER
    return parsed(path, path.read_bytes())[0] if path.exists() else []


def parsed(path: Path, raw: bytes) -> tuple[list[dict[str, Any]], int]:
    """The rows in ``raw``, and how many bytes they take; LedgerError for anything else than a torn last row."""
    rows: list[dict[str, Any]] = []
    whole = 0
    for number, line in enumerate(raw.splitlines(keepends=True), start=1):
        try:
            row = json.loads(line)
            if not {"key_sha256", "tokens", "error"} <= row.keys():
                raise ValueError("no call")
        except (ValueError, AttributeError) as error:
            if line.endswith(b"\n"):
                raise LedgerError(f"{path}, line {number}: this is no row of a ledger; move the file away") from error
            break
        rows.append(row)
        whole += len(line)
    return rows, whole
