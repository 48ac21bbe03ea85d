"""How far a long step has come: a bar in a terminal, now and then a line of log elsewhere."""

import functools
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)


@contextmanager
def progress(
    description: str,
    total: int,
    *,
    unit: str = "items",
    is_main: bool = True,
    every: float = 30.0,
    note: Callable[[], str] | None = None,
) -> Iterator[Callable[[int], None]]:
    """Show ``description``, done and total, rate and time left of a step with ``total`` units; yield what counts units as done.

    In a terminal it is one line that disappears in the end; elsewhere it is a line of log (level INFO) at most every ``every``
    seconds. Only the main process shows anything. One may run within another. ``note`` says what else is known so far; it is
    asked whenever something is shown, in a terminal by another thread.
    """
    if not is_main:
        yield lambda count: None
    elif sys.stderr.isatty():
        with _bar(description, total, unit, note) as advance:
            yield advance
    else:
        yield _lines(description, total, unit, every, note)


@contextmanager
def _bar(description: str, total: int, unit: str, note: Callable[[], str] | None) -> Iterator[Callable[[int], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.table import Column
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed or 0:.1f} {unit}/s")

    class Note(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(note() if note else "")

    text = TextColumn("{task.description}", markup=False)
    whole = Column(no_wrap=True)  # in a narrow terminal the bar gives way
    columns = [text, BarColumn(), MofNCompleteColumn(), Rate(whole), TimeRemainingColumn(), *([Note(whole)] if note else [])]
    with Progress(*columns, console=_console(), transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda count: bar.advance(task, count)


@functools.cache
def _console() -> "Console":
    """One console for all bars, which is how rich stacks those that run at the same time."""
    from rich.console import Console

    return Console(stderr=True)


def _lines(description: str, total: int, unit: str, every: float, note: Callable[[], str] | None) -> Callable[[int], None]:
    start = last = time.monotonic()
    done = 0

    def advance(count: int) -> None:
        nonlocal last, done
        done += count
        moment = time.monotonic()
        if moment - last >= every:
            last = moment
            rate = done / (moment - start)
            left = timedelta(seconds=round((total - done) / rate)) if rate else "unknown"
            more = f"; {note()}" if note else ""
            log.info("%s: %d of %d, %.1f %s/s, %s left%s", description, done, total, rate, unit, left, more)

    return advance
