"""How far chains have come: what a chain tells while it thinks, and the board that remembers it for whoever shows it.

A chain tells of an attempt as soon as it is graded, again when something is handed on, and last of all when the row is final. The
board is told by one thread and may be asked by others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Condition
from typing import Any

from latent_lab.deliberation.settings import SAMPLES

Row = dict[str, Any]
Place = tuple[str, int]
"""A method, and the number of a chain."""


class Watch:
    """Is told how chains go on; this one does not listen."""

    def seen(self, row: Row) -> None:
        """A row is new, or more of it is known."""

    def settled(self, rows: Sequence[Row]) -> None:
        """Rows will change no more."""


@dataclass(frozen=True)
class Spending:
    """What all calls so far amount to."""

    calls: int = 0
    failed: int = 0
    read: int = 0
    written: int = 0
    usd: float | None = 0.0
    """None: there is a call whose price is not known."""

    def and_of(self, call: Row) -> "Spending":
        """With one more call."""
        cost, tokens = call["cost_usd"], call["tokens"]
        usd = None if self.usd is None or cost is None else self.usd + cost
        read, written = self.read + tokens["prompt"], self.written + tokens["completion"]
        return Spending(self.calls + 1, self.failed + (call["error"] is not None), read, written, usd)


@dataclass
class Board(Watch):
    """The rows so far of every problem, and which problems have changed since one looked last."""

    calls: Sequence[Row] = ()
    """The rows of the ledger, which grows."""
    keep: Callable[[Row], None] = lambda row: None
    """Where a row goes that is final."""
    advance: Callable[[int], None] = lambda count: None
    """Counts final rows."""
    version: int = 0
    """How often anything was told."""
    num_settled: int = 0
    _rows: dict[str, dict[Place, dict[int, Row]]] = field(default_factory=dict)
    _changed: dict[str, int] = field(default_factory=dict)
    _spent: Spending = field(default_factory=Spending)
    _lock: Condition = field(default_factory=Condition)

    def seen(self, row: Row) -> None:
        """See :class:`Watch`."""
        with self._lock:
            self._note(row)

    def settled(self, rows: Sequence[Row]) -> None:
        """See :class:`Watch`."""
        with self._lock:
            for row in rows:
                self._note(row)
            self.num_settled += len(rows)
        for row in rows:
            self.keep(row)
        self.advance(len(rows))

    def _note(self, row: Row) -> None:
        chains = self._rows.setdefault(row["id"], {})
        chains.setdefault((row["method"], row["chain"]), {})[row["iteration"]] = dict(row)
        self.version += 1
        self._changed[row["id"]] = self.version
        self._lock.notify_all()

    def chains(self, problem: str) -> dict[Place, list[Row]]:
        """The rows of a problem's chains as far as they have come, first attempts that only vote last."""
        with self._lock:
            found = self._rows.get(problem, {})
            order = sorted(found, key=lambda place: (place[0] == SAMPLES, place))
            return {place: [found[place][k] for k in sorted(found[place])] for place in order}

    def changed_since(self, version: int, wait_s: float = 0.0) -> tuple[int, list[str]]:
        """The version now, and the problems that were told of after ``version``; if there are none yet, it waits a while."""
        with self._lock:
            self._lock.wait_for(lambda: self.version > version, wait_s)
            return self.version, [problem for problem, when in self._changed.items() if when > version]

    def spent(self) -> Spending:
        """What the ledger holds; each row is added once."""
        with self._lock:
            for call in self.calls[self._spent.calls :]:
                self._spent = self._spent.and_of(call)
            return self._spent

    def right(self) -> tuple[int, int]:
        """Of how many chains that think again the latest answer is right, and how many there are."""
        with self._lock:
            chains = [c for rows in self._rows.values() for (method, _), c in rows.items() if method != SAMPLES]
            return sum(rows[max(rows)]["correct"] for rows in chains), len(chains)

    def in_words(self) -> str:
        """Money and accuracy so far, in a few words."""
        spent, (right, chains) = self.spent(), self.right()
        money = f"{spent.usd:.4f} USD, " if spent.usd else ""
        return money + (f"{100 * right / chains:.1f}% of {chains} right" if chains else "no answer yet")
